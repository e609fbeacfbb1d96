//! One contract suite for every store.
