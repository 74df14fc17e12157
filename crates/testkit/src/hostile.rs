//! The hostile cell: a real cell behind a wire that is under the test's control.
//!
//! The wire stands where the cell's service stands. It hands requests on, answers them itself, or
//! twists what comes back, as its script says, and remembers what passed. What a device concludes
//! from a lie, and what it leaves untouched, is what the threat tests look at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use candor_client::CellService;
use candor_client::egress::{BoxFuture, TransportError};
use http::{Request, Response};

/// What a wire does with a request: hand it on (`None`), or answer it itself.
pub type Answer =
    dyn Fn(&Request<Bytes>) -> Option<Result<Response<Bytes>, TransportError>> + Send + Sync;

/// What a wire makes of a reply.
pub type Twist = dyn Fn(&Request<Bytes>, Response<Bytes>) -> Response<Bytes> + Send + Sync;

/// A request that passed: method, path, bytes of the body.
pub type Passed = (String, String, usize);

/// Everything between a device and a cell.
pub struct Wire {
    cell: Arc<dyn CellService>,
    requests: Mutex<Vec<Passed>>,
    answer: Mutex<Option<Arc<Answer>>>,
    twist: Mutex<Option<Arc<Twist>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// An honest wire to a cell.
    pub fn to(cell: Arc<dyn CellService>) -> Arc<Self> {
        Arc::new(Self {
            cell,
            requests: Mutex::default(),
            answer: Mutex::default(),
            twist: Mutex::default(),
        })
    }

    /// The device's end.
    pub fn service(self: &Arc<Self>) -> Arc<dyn CellService> {
        Arc::new(Door(Arc::clone(self)))
    }

    /// From now on, replies are twisted like this.
    pub fn twist(
        &self,
        twist: impl Fn(&Request<Bytes>, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) {
        *lock(&self.twist) = Some(Arc::new(twist));
    }

    /// From now on, requests are answered like this where the answer is not `None`.
    pub fn answer(
        &self,
        answer: impl Fn(&Request<Bytes>) -> Option<Result<Response<Bytes>, TransportError>>
        + Send
        + Sync
        + 'static,
    ) {
        *lock(&self.answer) = Some(Arc::new(answer));
    }

    /// Becomes honest again.
    pub fn honest(&self) {
        *lock(&self.answer) = None;
        *lock(&self.twist) = None;
    }

    /// Loses every request from now on.
    pub fn cut(&self) {
        self.answer(|_| Some(Err(lost())));
    }

    /// Every request so far, also those that were lost.
    pub fn requests(&self) -> Vec<Passed> {
        lock(&self.requests).clone()
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        lock(&self.requests).len()
    }

    /// Paths of the requests with this method, in order.
    pub fn paths(&self, method: &str) -> Vec<String> {
        let requests = lock(&self.requests);
        let with_method = requests.iter().filter(|(one, ..)| one == method);
        with_method.map(|(_, path, _)| path.clone()).collect()
    }

    /// Forgets what passed so far.
    pub fn forget(&self) {
        lock(&self.requests).clear();
    }
}

/// The connection broke.
pub fn lost() -> TransportError {
    TransportError::Broken(Box::new(std::io::Error::from(
        std::io::ErrorKind::ConnectionReset,
    )))
}

/// Does what a test says, which may wait for others, where it keeps nobody from going on.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

struct Door(Arc<Wire>);

impl CellService for Door {
    fn call(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let wire = Arc::clone(&self.0);
        Box::pin(async move {
            let method = request.method().to_string();
            let path = request.uri().path().to_owned();
            lock(&wire.requests).push((method, path, request.body().len()));
            let answer = lock(&wire.answer).clone();
            let (request, answered) = off_the_runtime(move || {
                let answered = answer.and_then(|answer| answer(&request));
                (request, answered)
            })
            .await;
            if let Some(answered) = answered {
                return answered;
            }
            let kept = Request::builder()
                .method(request.method().clone())
                .uri(request.uri().clone())
                .body(request.body().clone())
                .unwrap();
            let reply = wire.cell.call(request).await?;
            let twist = lock(&wire.twist).clone();
            let twisted = move || match twist {
                Some(twist) => twist(&kept, reply),
                None => reply,
            };
            Ok(off_the_runtime(twisted).await)
        })
    }
}
