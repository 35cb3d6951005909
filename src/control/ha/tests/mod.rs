//! The rows of the design's table of states, what is said in words, and a model of all that can happen.

mod cluster;
mod model;
mod orders;
mod rows;
mod world;
