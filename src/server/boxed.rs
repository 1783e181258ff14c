//! Connections in boxes of their own. A connection's task is as large as the largest thing that
//! it ever holds, and holds some of them several times: with the state of TLS in it, and that of
//! the handshake, 6 KiB, of which an idle agent's connection needs a third.

use std::io;

use axum_server::accept::Accept;
use futures_util::future::BoxFuture;

/// Accepts as another one does.
#[derive(Clone, Debug)]
pub(crate) struct Boxed<A>(pub A);

impl<A, I, S> Accept<I, S> for Boxed<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = Box<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepted = self.0.accept(stream, service);
        Box::pin(async {
            let (stream, service) = accepted.await?;
            Ok((Box::new(stream), service))
        })
    }
}
