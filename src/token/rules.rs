//! One function for each claim rule; each names its specification section.
