//! A simulated machine: its cores are shared evenly by the requests it works on, after its noisy neighbour took what it
//! wants. So response times and the reported CPU are consequences of the load, as on a real one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::domain::moment::Moment;
use crate::runtime::clock::Clock;

/// A machine in real time.
#[derive(Debug)]
pub struct Machine {
    /// Its name, which is also the id of its host agent.
    pub name: &'static str,
    clock: Clock,
    cores: Mutex<Cores>,
    changed: Notify,
}

/// CPU used since the last report, as shares of the whole machine.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuReport {
    /// All of it, the neighbour's as well.
    pub machine: f64,
    /// By slot, in the order the slots were made.
    pub slots: Vec<f64>,
}

impl Machine {
    /// Starts one with so many cores and so many slots for instances. It runs until the runtime ends.
    pub fn start(name: &'static str, cores: f64, slots: usize, clock: Clock) -> Arc<Machine> {
        let machine = Arc::new(Machine {
            name,
            clock,
            cores: Mutex::new(Cores::new(cores, slots, clock.now())),
            changed: Notify::new(),
        });
        tokio::spawn(machine.clone().run());
        machine
    }

    /// How many cores it has.
    pub fn cores(&self) -> f64 {
        self.cores.lock().cores
    }

    /// How many cores the neighbour takes now.
    pub fn neighbour(&self) -> f64 {
        self.cores.lock().neighbour
    }

    /// Lets a neighbour take so many cores from now on.
    pub fn set_neighbour(&self, cores: f64) {
        let mut state = self.cores.lock();
        state.advance(self.clock.now());
        state.neighbour = cores.min(state.cores);
        drop(state);
        self.changed.notify_one();
    }

    /// Works on a request of an instance for so many seconds of CPU. If the caller gives up, so does the machine.
    pub async fn work(&self, slot: usize, cpu_seconds: f64) {
        let (done, finished) = oneshot::channel();
        let job = self.cores.lock().begin(slot, cpu_seconds, done, self.clock.now());
        self.changed.notify_one();
        let _given_up = GiveUp { machine: self, job };
        let _machine_gone = finished.await;
    }

    /// What was used since the last call.
    pub fn report(&self) -> CpuReport {
        self.cores.lock().report(self.clock.now())
    }

    async fn run(self: Arc<Machine>) {
        loop {
            let next = self.cores.lock().next_finish(self.clock.now());
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(next.unwrap_or(Duration::from_secs(3600))) => {}
            }
            self.cores.lock().advance(self.clock.now());
        }
    }
}

/// Takes a job off the machine when its caller is gone; nothing happens if it is finished.
struct GiveUp<'a> {
    machine: &'a Machine,
    job: JobKey,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.machine.cores.lock().give_up(self.job, self.machine.clock.now());
        self.machine.changed.notify_one();
    }
}

/// When it is finished on the scale of work given to each job (in nanoseconds), then in order of arrival.
type JobKey = (u64, u64);

#[derive(Debug)]
struct Job {
    slot: usize,
    done: oneshot::Sender<()>,
}

/// Processor sharing without a clock of its own.
#[derive(Debug)]
struct Cores {
    cores: f64,
    neighbour: f64,
    /// Seconds of CPU that a job which was always there would have been given.
    given: f64,
    at: Moment,
    began_report: Moment,
    neighbour_used: f64,
    jobs: BTreeMap<JobKey, Job>,
    next_serial: u64,
    used: Vec<f64>,
    running: Vec<u32>,
}

impl Cores {
    fn new(cores: f64, slots: usize, now: Moment) -> Cores {
        Cores {
            cores,
            neighbour: 0.0,
            given: 0.0,
            at: now,
            began_report: now,
            neighbour_used: 0.0,
            jobs: BTreeMap::new(),
            next_serial: 0,
            used: vec![0.0; slots],
            running: vec![0; slots],
        }
    }

    /// Seconds of CPU each job is given per second: never more than one core.
    fn rate(&self) -> f64 {
        // Even a starved machine gets a little done, or nothing would ever end.
        let left = (self.cores - self.neighbour).max(0.05);
        if self.jobs.is_empty() { 0.0 } else { (left / self.jobs.len() as f64).min(1.0) }
    }

    /// Works until `now`, from one finish to the next.
    fn advance(&mut self, now: Moment) {
        loop {
            let until_now = now.since(self.at).as_secs_f64();
            let finish = self.first_finish();
            let step = finish.map_or(until_now, |seconds| seconds.min(until_now));
            let rate = self.rate();
            self.given += rate * step;
            self.neighbour_used += self.neighbour * step;
            for (used, running) in self.used.iter_mut().zip(&self.running) {
                *used += rate * step * f64::from(*running);
            }
            self.at = self.at + Duration::from_secs_f64(step);
            if finish.is_none_or(|seconds| seconds > until_now) {
                self.at = now;
                return;
            }
            let (_, job) = self.jobs.pop_first().expect("a finish belongs to a job");
            self.running[job.slot] -= 1;
            let _caller_gone = job.done.send(());
        }
    }

    /// Seconds until the first job ends if nothing else happens.
    fn first_finish(&self) -> Option<f64> {
        let (finish, _) = self.jobs.first_key_value()?.0;
        Some((*finish as f64 / 1e9 - self.given).max(0.0) / self.rate())
    }

    fn next_finish(&mut self, now: Moment) -> Option<Duration> {
        self.advance(now);
        self.first_finish().map(|seconds| Duration::from_secs_f64(seconds.min(3600.0)))
    }

    fn begin(&mut self, slot: usize, cpu_seconds: f64, done: oneshot::Sender<()>, now: Moment) -> JobKey {
        self.advance(now);
        let key = (((self.given + cpu_seconds) * 1e9) as u64, self.next_serial);
        self.next_serial += 1;
        self.running[slot] += 1;
        self.jobs.insert(key, Job { slot, done });
        key
    }

    fn give_up(&mut self, key: JobKey, now: Moment) {
        self.advance(now);
        if let Some(job) = self.jobs.remove(&key) {
            self.running[job.slot] -= 1;
        }
    }

    fn report(&mut self, now: Moment) -> CpuReport {
        self.advance(now);
        let capacity = self.cores * now.since(self.began_report).as_secs_f64();
        let share = |used: f64| if capacity > 0.0 { (used / capacity).clamp(0.0, 1.0) } else { 0.0 };
        let slots: Vec<_> = self.used.iter().map(|used| share(*used)).collect();
        let machine = share(self.used.iter().sum::<f64>() + self.neighbour_used);
        self.used.fill(0.0);
        self.neighbour_used = 0.0;
        self.began_report = now;
        CpuReport { machine, slots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    /// When jobs of so many milliseconds of CPU, all begun at 0, end: rounded up to milliseconds.
    fn check_ends(cores: f64, neighbour: f64, jobs: &[u64], expected: &[u64]) {
        let mut machine = Cores::new(cores, 1, at(0));
        machine.neighbour = neighbour;
        let mut waiting: Vec<_> = jobs
            .iter()
            .map(|millis| {
                let (done, finished) = oneshot::channel();
                machine.begin(0, *millis as f64 / 1e3, done, at(0));
                (finished, None)
            })
            .collect();
        for now in 0..10_000 {
            machine.advance(at(now));
            for (finished, ended) in &mut waiting {
                if ended.is_none() && finished.try_recv().is_ok() {
                    *ended = Some(now);
                }
            }
        }
        let ended: Vec<_> = waiting.iter().map(|(_, ended)| ended.expect("all end")).collect();
        let is_close = |(a, b): (&u64, &u64)| a.abs_diff(*b) <= 1;
        assert!(ended.len() == expected.len() && ended.iter().zip(expected).all(is_close), "{ended:?}");
    }

    #[test]
    fn jobs_share_the_cores_evenly_and_use_one_core_at_most() {
        check_ends(1.0, 0.0, &[100], &[100]);
        check_ends(4.0, 0.0, &[100], &[100]);
        check_ends(1.0, 0.0, &[100, 100], &[200, 200]);
        check_ends(1.0, 0.0, &[100, 200], &[200, 300]);
        check_ends(2.0, 1.5, &[100], &[200]);
    }

    #[test]
    fn a_report_tells_who_used_what_since_the_last_one() {
        let mut machine = Cores::new(2.0, 2, at(0));
        let (done, _finished) = oneshot::channel();
        machine.begin(1, 0.5, done, at(0));
        machine.neighbour = 1.0;
        let report = machine.report(at(1000));
        assert_eq!(report.slots[0], 0.0);
        assert!((report.slots[1] - 0.25).abs() < 1e-6 && (report.machine - 0.75).abs() < 1e-6, "{report:?}");
        machine.neighbour = 0.0;
        assert_eq!(machine.report(at(2000)), CpuReport { machine: 0.0, slots: vec![0.0, 0.0] });
    }

    #[test]
    fn a_job_given_up_frees_its_share() {
        let mut machine = Cores::new(1.0, 1, at(0));
        let (done, mut finished) = oneshot::channel();
        machine.begin(0, 0.1, done, at(0));
        let (other, _gone) = oneshot::channel();
        let other = machine.begin(0, 10.0, other, at(0));
        machine.give_up(other, at(100)); // 50 ms of work were done by then
        machine.advance(at(149));
        assert!(finished.try_recv().is_err());
        machine.advance(at(151));
        assert!(finished.try_recv().is_ok());
    }
}
