//! A server of a test, on a free port, gone with its handle.

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running server.
pub struct Server {
    /// Its base URL.
    pub url: String,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves these routes.
    pub async fn start(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
