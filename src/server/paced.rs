//! How slowly the client of a connection that has not authenticated may read its answer, a
//! package for example: meanwhile it keeps a place from others.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connections::Connection;

/// How long the client may keep the server waiting, and how many bytes each second more
/// costs.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(200) } else { SILENT };
const SILENT: Duration = Duration::from_secs(60);
const BYTES_PER_SECOND: u64 = 32 * 1024;

/// A connection that ends with [`ErrorKind::TimedOut`] when its client reads too slowly and
/// has not authenticated.
#[derive(Debug)]
pub(crate) struct Paced {
    stream: TcpStream,
    connection: Connection,
    written: u64,
    /// How long writes have waited, but for the present one.
    waited: Duration,
    /// Since when the present write waits, and when it has waited too long.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, connection: Connection) -> Self {
        Self { stream, connection, written: 0, waited: Duration::ZERO, waiting: None }
    }

    fn pace(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            self.written += wrote_bytes(&wrote);
            return wrote;
        }
        if self.connection.is_authenticated() {
            return Poll::Pending;
        }
        let allowed = PATIENCE + Duration::from_secs(self.written / BYTES_PER_SECOND);
        let left = allowed.saturating_sub(self.waited);
        let (_, too_long) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        });
        ready!(too_long.as_mut().poll(context));
        let why = "the client reads its answer too slowly and has not sent a token";
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, why)))
    }
}

fn wrote_bytes(wrote: &Poll<io::Result<usize>>) -> u64 {
    match wrote {
        Poll::Ready(Ok(length)) => *length as u64,
        _ => 0,
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pace(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.pace(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::connections::{Gate, Limits, Owner, authenticated};

    /// A connection of the server's, and its client.
    async fn connected() -> (Paced, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let gate = Gate::new(Limits { all: 9, unauthenticated: 9, per_address: 9 });
        let address: IpAddr = peer.ip();
        (Paced::new(stream, gate.admit(address).await.unwrap()), client)
    }

    /// Writes more than any buffer on the way holds.
    async fn answer(paced: &mut Paced) -> io::Result<()> {
        paced.write_all(&vec![0; 64 * 1024 * 1024]).await
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_loses_its_connection() {
        let (mut paced, _client) = connected().await;
        // What the buffers took buys no hours.
        paced.written = 0;
        paced.waited = Duration::from_secs(60 * 60);
        let error = answer(&mut paced).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn each_byte_that_is_read_gives_a_client_more_time() {
        let (mut paced, mut client) = connected().await;
        let reading = async {
            let mut buffer = vec![0; 1024 * 1024];
            while let Ok(length) = client.read(&mut buffer).await
                && length > 0
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answered = answer(&mut paced) => answered.unwrap(),
            () = reading => panic!("the connection ended"),
        }
    }

    #[tokio::test]
    async fn a_client_that_has_authenticated_may_be_slow() {
        let (mut paced, _client) = connected().await;
        let mut extensions = axum::http::Extensions::new();
        extensions.insert(paced.connection.clone());
        authenticated(&extensions, Owner::Token("at-1")).unwrap();
        paced.waited = Duration::from_secs(60 * 60 * 24);
        let answered = tokio::time::timeout(3 * PATIENCE, answer(&mut paced)).await;
        assert!(answered.is_err(), "{answered:?}");
    }
}
