//! Sessions in an embedded transactional database in `data_dir`: the default.
