//! How the parts of the process learn that it ends: first drain, then stop.

use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Health says 503; requests are still served.
    Leaving,
    /// Listeners are closed; what is in flight may finish.
    Draining,
    /// The end: drop everything.
    Stopped,
}

/// Moves the process through its phases; forwards only.
#[derive(Clone, Debug)]
pub struct Conductor {
    phase: watch::Sender<Phase>,
}

/// Hears of the phases.
#[derive(Clone, Debug)]
pub struct Listener {
    phase: watch::Receiver<Phase>,
}

/// A conductor and a first listener, in `Phase::Running`.
pub fn channel() -> (Conductor, Listener) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Conductor { phase: sender }, Listener { phase: receiver })
}

impl Conductor {
    /// Enters `phase`, unless it is past already.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forwards = phase > *now;
            if forwards {
                *now = phase;
            }
            forwards
        });
    }

    /// One more listener.
    pub fn listener(&self) -> Listener {
        Listener { phase: self.phase.subscribe() }
    }
}

impl Listener {
    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns once `phase` (or a later one) has been entered, or the conductor is gone.
    pub async fn reached(&mut self, phase: Phase) {
        let _gone = self.phase.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_go_forwards_only() {
        let (conductor, mut listener) = channel();
        assert_eq!(listener.phase(), Phase::Running);
        conductor.enter(Phase::Draining);
        listener.reached(Phase::Leaving).await;
        conductor.enter(Phase::Leaving);
        assert_eq!(listener.phase(), Phase::Draining);
        drop(conductor);
        listener.reached(Phase::Stopped).await;
    }
}
