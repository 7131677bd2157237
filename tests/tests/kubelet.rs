//! The device plugin and the DRA driver against a stub of the kubelet, which speaks its protocols over real sockets, and a stub of
//! the API server, on simulated cards.

#[path = "kubelet/api_server.rs"]
mod api_server;
#[path = "kubelet/cluster.rs"]
mod cluster;
#[path = "kubelet/container.rs"]
mod container;
#[path = "kubelet/device_plugin.rs"]
mod device_plugin;
#[path = "kubelet/dra.rs"]
mod dra;
#[path = "kubelet/stub.rs"]
mod stub;
