//! The JWS compact serialisation, taken apart strictly (ID-1).
