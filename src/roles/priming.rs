//! What there is to do before the first request is accepted. Until then the ports are bound, but closed: who asks a load
//! balancer's question shall not be told that we serve.

use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::adapters::admin::Health;
use crate::proxy::worker;
use crate::runtime::bus_state::BusState;

/// What the bus has brought is waited for so long, after the time that the operator set. A full queue is worked off in two
/// seconds; a storm that never lets it become empty shall not keep us from serving.
const CATCH_UP: Duration = Duration::from_secs(30);

/// How registrations are gathered.
pub(super) struct Gathering {
    /// How long, once there is a bus. One that does not come is waited for as long.
    pub(super) time: Duration,
    pub(super) bus: Arc<BusState>,
    /// To the control plane, which answers when nothing is queued any more and the workers see it all.
    pub(super) caught_up: mpsc::Sender<oneshot::Sender<()>>,
}

impl Gathering {
    /// Returns when the table is primed.
    async fn run(self) {
        let _late = timeout(self.time, self.bus.until_connected()).await;
        sleep(self.time).await;
        let (answer, answered) = oneshot::channel();
        let _stopped = self.caught_up.send(answer).await;
        if timeout(CATCH_UP, answered).await.is_err() {
            tracing::warn!("messages come faster than they are taken in: serving with what is known");
        }
    }
}

/// Who is to know that the table is primed.
pub(super) struct Opening {
    pub(super) sockets: Vec<Socket>,
    pub(super) health: Health,
    pub(super) workers: watch::Sender<bool>,
}

impl Opening {
    /// At once if nothing is to be gathered.
    pub(super) fn after(self, gathering: Gathering) -> JoinHandle<()> {
        if gathering.time.is_zero() {
            self.open();
            return tokio::spawn(async {});
        }
        tokio::spawn(async move {
            gathering.run().await;
            self.open();
        })
    }

    fn open(self) {
        if let Err(error) = worker::listen(&self.sockets) {
            tracing::error!(%error, "a port could not be opened");
        }
        self.health.primed();
        self.workers.send_replace(true);
        tracing::info!("serving");
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    /// Begins to gather: the bus, what the control plane is asked, and when that is over.
    fn begin() -> (Arc<BusState>, mpsc::Receiver<oneshot::Sender<()>>, JoinHandle<Duration>) {
        let (caught_up, asked) = mpsc::channel(1);
        let bus = Arc::new(BusState::default());
        let gathering = Gathering { time: TIME, bus: bus.clone(), caught_up };
        let task = tokio::spawn(async move {
            let began = Instant::now();
            gathering.run().await;
            began.elapsed()
        });
        (bus, asked, task)
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_bus_and_then_the_queue() {
        let (bus, mut asked, task) = begin();
        sleep(Duration::from_secs(1)).await;
        bus.note_connected("a server");
        let answer = asked.recv().await.expect("the control plane is asked");
        sleep(Duration::from_secs(3)).await;
        assert!(!task.is_finished(), "it serves before the queue has been worked off");
        answer.send(()).expect("somebody waits for it");
        assert_eq!(task.await.expect("it does not panic").as_secs(), 1 + 5 + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_bus_that_does_not_come_nor_a_storm_is_waited_for_in_vain() {
        let (_bus, mut asked, task) = begin();
        let _unanswered = asked.recv().await.expect("the control plane is asked");
        assert_eq!(task.await.expect("it does not panic"), TIME + TIME + CATCH_UP);
    }
}
