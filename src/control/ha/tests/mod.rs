//! The rows of the design's table of states, what is said in words, a model of all that can happen, and a simulator of bad luck.

mod cluster;
mod model;
mod orders;
mod rows;
mod simulator;
mod world;
