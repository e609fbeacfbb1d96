//! Ready sessions: the cache in front of the store.
