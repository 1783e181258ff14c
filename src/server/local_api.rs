//! The pool API for the host's own administrators: a socket in the data folder that only
//! root and the server's user can connect to. It needs no token, and no name of the server.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use axum::{Extension, Router};
use tokio::net::UnixListener;

use crate::app::App;
use crate::{api, metrics, packages, pages};

/// The socket's file in the data folder.
pub(crate) const SOCKET: &str = "api.sock";

/// Marks a request as an administrator's of this host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalAdmin;

/// Listens in `data`, which no other server uses. The umask keeps others out.
///
/// # Errors
/// There can't be a socket: the folder's path has more than 100 bytes, for example.
pub(crate) fn bind(data: &Path) -> Result<UnixListener> {
    let path = data.join(SOCKET);
    let listen = || {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(&path)
    };
    listen().with_context(|| format!("cannot listen on {}", path.display()))
}

/// Answers until the task is aborted.
///
/// # Errors
/// The socket fails.
pub(crate) async fn serve(listener: UnixListener, app: App) -> Result<()> {
    let routes = Router::new()
        .merge(api::pools::routes(&app))
        .merge(packages::routes(&app))
        .merge(pages::local_routes())
        .merge(metrics::endpoint::routes())
        .layer(Extension(LocalAdmin))
        .with_state(app);
    axum::serve(listener, routes).await.context("the socket failed")
}
