//! Turns the files that the benches write to `benches/results/` into what a reader sees.

pub mod chart;
pub mod pages;
pub mod results;
pub mod steps;
