//! The metrics, in Prometheus' text format.

/// All metric families. Labels have few values: status class, refusal code, provider id, operation.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }

    /// The exposition in the text format that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        todo!()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
