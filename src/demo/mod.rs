//! `kordon demo`: the embedded broker and the tour. Behind the cargo feature `demo`; `kordon run`
//! never uses it.

pub mod broker;
pub mod client;
