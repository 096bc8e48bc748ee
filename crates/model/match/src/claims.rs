//! The claims of a comparison.
