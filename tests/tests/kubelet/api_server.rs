//! A stub of the API server.
