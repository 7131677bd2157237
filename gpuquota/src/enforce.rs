//! stub
pub const SET: &str = "enforce";
