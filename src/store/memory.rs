//! Sessions in this process's memory: for trials and tests; a restart forgets them.
