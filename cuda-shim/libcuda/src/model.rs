//! What a driver holds and what calls do to it; exports nothing. From the bottom up: [`objects`], each alone;
//! [`world`], which has them all; [`operations`], which change several of them at once.

pub mod logs;
pub mod objects;
pub mod operations;
pub mod world;
