//! Bodies of requests in pieces that are not small. Each piece that a handler keeps takes memory
//! besides its bytes: a body in chunks of one byte would take a hundred times its length.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use futures_util::stream::try_unfold;

/// The least that a piece has, but for the last one, in bytes.
const LEAST: usize = 16 * 1024;

/// Gives a request's body in pieces of at least [`LEAST`] bytes.
pub(crate) fn join_small(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| {
        let pieces = body.into_data_stream();
        Body::from_stream(try_unfold(pieces, async |mut pieces| {
            let mut joined = BytesMut::new();
            while joined.len() < LEAST
                && let Some(piece) = pieces.try_next().await?
            {
                joined.extend_from_slice(&piece);
            }
            let is_end = joined.is_empty();
            Ok::<_, axum::Error>((!is_end).then(|| (joined.freeze(), pieces)))
        }))
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn a_body_of_single_bytes_comes_in_few_pieces() {
        const LENGTH: usize = 1024 * 1024;
        let sent: Vec<u8> = (0..LENGTH).map(|at| at as u8).collect();
        let bytes = sent.clone().into_iter().map(|byte| Ok::<_, Infallible>(vec![byte]));
        let request = join_small(Request::new(Body::from_stream(stream::iter(bytes))));
        let pieces: Vec<_> = request.into_body().into_data_stream().collect().await;
        let pieces: Vec<_> = pieces.into_iter().map(Result::unwrap).collect();
        assert_eq!(pieces.concat(), sent);
        assert!(pieces.len() <= LENGTH / LEAST, "{} pieces", pieces.len());
    }
}
