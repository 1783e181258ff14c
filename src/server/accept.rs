//! Takes connections in: each waits for a place, and is paced.

use std::io;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tower::Layer as _;

use super::connections::{Connection, Gate};
use super::paced::Paced;

impl<S: Send + 'static> Accept<TcpStream, S> for Gate {
    type Stream = Paced;
    type Service = AddExtension<S, Connection>;
    type Future = BoxFuture<'static, io::Result<(Paced, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move {
            // Small answers wait for nothing: no Nagle.
            stream.set_nodelay(true)?;
            let connection = gate.admit(stream.peer_addr()?.ip()).await?;
            let stream = Paced::new(stream, connection.clone());
            Ok((stream, Extension(connection).layer(service)))
        })
    }
}
