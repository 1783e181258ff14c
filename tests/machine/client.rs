//! Calls to the server from this process, without the time that a curl takes to start.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};

use nix::sched::{CloneFlags, setns};
use reqwest::{Certificate, Client};

use crate::fleet::Fleet;

/// Makes this thread, and those that it starts, a part of the machine's network.
pub(crate) fn enter_network(fleet: &Fleet) {
    let pid = fleet.world.pid(&fleet.machine);
    let network = File::open(format!("/proc/{pid}/ns/net")).expect("the machine runs");
    setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
}

/// A client that trusts the server's authority, for who is in the machine's network.
pub(crate) fn client(fleet: &Fleet) -> Client {
    // Of two providers, rustls picks neither by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = std::fs::read(fleet.ca()).expect("the server wrote its authority");
    let authority = Certificate::from_pem(&authority).expect("a certificate");
    let server = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 8443));
    let client = Client::builder().tls_certs_only([authority]).no_proxy();
    client.resolve("pools.test", server).build().expect("a client")
}
