//! The key set cache of one provider: single flight, bounded refetches (ID-4).
