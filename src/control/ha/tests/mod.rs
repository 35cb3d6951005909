//! The rows of the design's table of states, and what is said in words.

mod cluster;
mod orders;
mod rows;
