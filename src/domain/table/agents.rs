//! Host agents: what they report about their instances, and what follows when they leave one out, begin a new life or go.

use std::time::Duration;

use arcstr::ArcStr;

use super::enrol::{Origin, Wish};
use super::few::Few;
use super::{Changes, Departure, Heard, RouteTable};
use crate::domain::balance::live::State;
use crate::domain::identity::{AgentId, InstanceId};
use crate::domain::load::Usage;
use crate::domain::moment::Moment;
use crate::domain::protocol::heartbeat::{Entry, EntryState, Exited, Heartbeat, Serves, Shutdown};
use crate::domain::protocol::register::Registration;

/// A lease that a heartbeat gives lasts so many of its intervals …
const INTERVALS: u32 = 3;
/// … but at least so long.
const LEASE_MIN: Duration = Duration::from_secs(5);
/// Assumed of heartbeats that do not say how often they come.
const USUAL_INTERVAL: Duration = Duration::from_secs(10);
/// An agent without instances is remembered so long after its last heartbeat, for its sequence number.
const AGENT_KEPT: Duration = Duration::from_secs(600);

/// One host agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    /// Its present life; empty if it does not say.
    boot: ArcStr,
    /// The life before, whose late messages are stale.
    former_boot: ArcStr,
    seq: Option<u64>,
    heard_at: Option<Moment>,
    interval: Duration,
    load: Usage,
    /// Heartbeats so far.
    beat: u32,
    /// It said that it goes: whatever runs there drains until it begins a new life.
    is_leaving: bool,
    pub(super) instances: Vec<u32>,
}

impl RouteTable {
    /// An agent reports. Returns also how long ago it did so before.
    pub fn heartbeat(&mut self, beat: &Heartbeat, now: Moment, changes: &mut Changes) -> (Heard, Option<Duration>) {
        if !self.has_room_for_all(beat) {
            return (Heard::Full, None);
        }
        let no = self.agent(&beat.agent);
        let agent = &mut self.agents[no];
        let is_other_life = !beat.boot.is_empty() && beat.boot != agent.boot;
        let is_stale = match beat.seq {
            Some(_) if is_other_life => beat.boot == agent.former_boot,
            Some(seq) => agent.seq.is_some_and(|last| seq <= last),
            None => false,
        };
        if is_stale {
            return (Heard::Ignored, None);
        }
        let is_new_life = is_other_life && !agent.boot.is_empty();
        let age = agent.heard_at.map(|at| now.since(at));
        if is_other_life {
            agent.former_boot = std::mem::replace(&mut agent.boot, beat.boot.clone());
            agent.is_leaving &= !is_new_life;
        }
        agent.seq = beat.seq.or(agent.seq.filter(|_| !is_other_life));
        agent.heard_at = Some(now);
        agent.interval = beat.interval.unwrap_or(USUAL_INTERVAL);
        agent.load = beat.load;
        agent.beat = agent.beat.wrapping_add(1).max(1);
        for entry in &beat.entries {
            self.entry(no, beat, entry, now, changes);
            self.pace.step();
        }
        if is_new_life || (beat.complete && beat.seq.is_some()) {
            self.remove_left_out(no, now, changes);
        }
        self.spread_host_load(no, now);
        self.check_invariants(None);
        (Heard::Applied, age)
    }

    fn has_room_for_all(&self, beat: &Heartbeat) -> bool {
        let registering = beat.entries.iter().filter_map(|entry| match &entry.serves {
            Serves::Routes(facts, uris) => Some((facts, &uris[..])),
            Serves::Unsaid | Serves::Nothing => None,
        });
        let is_known = self.agent_of.contains_key(&beat.agent);
        (is_known || self.agents.len() < self.settings.agents_max) && self.has_room_for(registering)
    }

    /// Applies what a heartbeat says about one instance.
    fn entry(&mut self, agent: u32, beat: &Heartbeat, entry: &Entry, now: Moment, changes: &mut Changes) {
        if entry.state == EntryState::Gone {
            let mut gone = self.meant(agent, entry);
            if let (Serves::Routes(facts, _), true) = (&entry.serves, gone.is_empty()) {
                gone = self.instance_at(facts).into_iter().collect();
            }
            gone.iter().for_each(|no| self.remove_instance(*no, Departure::Exited, now, changes));
            return;
        }
        let found = match &entry.serves {
            Serves::Routes(facts, _) if !self.settings.isolation.admits(&facts.isolation_segment) => return,
            Serves::Routes(facts, uris) => {
                let asked = beat.interval.map_or(self.settings.stale_after, |interval| interval * INTERVALS);
                let lease = self.lease_of(facts.tls.is_some(), asked.max(LEASE_MIN).min(self.settings.stale_after));
                let enrolled = self.enrol(facts, uris, Wish::default(), Origin::Heartbeat, lease, now, changes);
                enrolled.into_iter().collect()
            }
            Serves::Unsaid | Serves::Nothing => self.meant(agent, entry),
        };
        for &no in &found {
            if entry.serves == Serves::Unsaid {
                self.instances[no].renew_all(now);
            }
            self.learn_local_id(no, &entry.local);
            self.move_to_agent(no, agent);
            self.instances[no].beat = self.agents[agent].beat;
            let state = match entry.state {
                EntryState::Running if self.agents[agent].is_leaving => State::Draining,
                EntryState::Starting if self.agents[agent].is_leaving => State::Draining,
                EntryState::Running => State::Running,
                EntryState::Starting => State::Starting,
                EntryState::Leaving | EntryState::Gone => State::Draining,
            };
            self.set_state(no, state, now, changes);
            self.report(no, entry.load, beat.load, self.agents[agent].interval, now);
            self.note_if_stirred(no, changes);
        }
    }

    /// The known instances that an entry is about: by its id, else by its agent's own id of it, else by app and number on
    /// this agent, if it names both and there is no doubt. Whoever is known by another id than the entry says is not meant.
    fn meant(&self, agent: u32, entry: &Entry) -> Few<u32> {
        let differs = |a: &InstanceId, b: &InstanceId| !a.is_empty() && !b.is_empty() && a != b;
        let has_id = |no: &u32| self.instances[*no].id == entry.instance;
        let by_id: Few<u32> = self.instances_with(&entry.instance).filter(has_id).collect();
        if !by_id.is_empty() {
            return by_id;
        }
        let is_meant = |no: &u32| !differs(&self.instances[*no].id, &entry.instance);
        let by_local: Few<u32> = self.instances_with(&entry.local).filter(is_meant).collect();
        let Some(index) = entry.index.filter(|_| by_local.is_empty()) else { return by_local };
        let index = index.to_string();
        let local = self.hash_of_id(&entry.local);
        let is_same_locally =
            |no: &u32| local.is_none() || self.instances[*no].local.is_none_or(|own| Some(own) == local);
        let is_here = |no: &u32| self.instances[*no].agent.is_some_and(|(known, _)| known == agent);
        let is_in_slot = |no: &u32| is_here(no) && *self.instances[*no].endpoint.index == *index;
        let is_it = |no: &u32| is_in_slot(no) && is_meant(no) && is_same_locally(no);
        let mut meant = self.instances_in(&entry.app).filter(is_it);
        match (meant.next(), meant.next()) {
            (Some(only), None) => Few::One(only),
            _ => Few::default(),
        }
    }

    /// Removes what the agent reported in earlier heartbeats but not in the present one.
    fn remove_left_out(&mut self, agent: u32, now: Moment, changes: &mut Changes) {
        let beat = self.agents[agent].beat;
        let is_left_out = |no: &u32| {
            let last = self.instances[*no].beat;
            last != 0 && last != beat
        };
        let left_out: Vec<u32> = self.agents[agent].instances.iter().copied().filter(is_left_out).collect();
        for no in left_out {
            self.remove_instance(no, Departure::LeftOut, now, changes);
        }
    }

    /// Instances that are known to be on the agent's host feel its load, whether the heartbeat names them or not.
    fn spread_host_load(&mut self, agent: u32, now: Moment) {
        let Agent { load, interval, beat, .. } = self.agents[agent];
        for at in 0..self.agents[agent].instances.len() {
            let no = self.agents[agent].instances[at];
            if self.instances[no].beat == beat {
                continue;
            }
            let own = self.instances[no].live.heard().map(|heard| heard.instance).unwrap_or_default();
            self.report(no, own, load, interval, now);
        }
    }

    /// Takes in the load in a registration. Where it says nothing of the host, its agent may have.
    pub(super) fn report_registration(&mut self, no: u32, registration: &Registration, now: Moment) {
        if registration.load.is_unknown() && registration.host_load.is_unknown() {
            return;
        }
        let instance = &self.instances[no];
        let (mut own, mut host) = (registration.load, registration.host_load);
        if own.is_unknown() {
            own = instance.live.heard().map(|heard| heard.instance).unwrap_or_default();
        }
        if host.is_unknown() {
            host = instance.agent.map(|(agent, _)| self.agents[agent].load).unwrap_or_default();
        }
        self.report(no, own, host, self.settings.advertise_interval, now);
    }

    fn report(&mut self, no: u32, own: Usage, host: Usage, interval: Duration, now: Moment) {
        if own.is_unknown() && host.is_unknown() {
            return;
        }
        let instance = &self.instances[no];
        // Routes first: to lock waits for all that is being read, so they come from memory while the instance's load does.
        for place in &instance.places {
            let route = &mut self.routes[place.route];
            route.has_loads = true;
            if !route.reported {
                route.reported = true;
                self.reported.push(place.route);
            }
        }
        instance.live.reported(own, host, interval, now);
    }

    /// An agent goes: everything on its host drains.
    pub fn shutdown(&mut self, shutdown: &Shutdown, now: Moment, changes: &mut Changes) -> Heard {
        let Some(&agent) = self.agent_of.get(&shutdown.agent) else { return Heard::Ignored };
        self.agents[agent].is_leaving = true;
        for no in self.agents[agent].instances.clone() {
            self.set_state(no, State::Draining, now, changes);
        }
        Heard::Applied
    }

    /// An instance is gone.
    pub fn exited(&mut self, exited: &Exited, now: Moment, changes: &mut Changes) -> Heard {
        let mut gone: Few<u32> = self.instances_with(&exited.instance).collect();
        if let (true, Some(index)) = (gone.is_empty(), exited.index) {
            // Without a known id there must be no doubt about who is meant.
            let index = index.to_string();
            let is_it = |no: &u32| {
                let known = &self.instances[*no];
                let has_other_id = !exited.instance.is_empty() && known.local.is_some();
                !has_other_id && *known.endpoint.index == *index
            };
            let mut of_slot = self.instances_in(&exited.app).filter(is_it);
            if let (Some(only), None) = (of_slot.next(), of_slot.next()) {
                gone = Few::One(only);
            }
        }
        for &no in &gone {
            self.remove_instance(no, Departure::Exited, now, changes);
        }
        self.check_invariants(None);
        if gone.is_empty() { Heard::Ignored } else { Heard::Applied }
    }

    /// The number of an agent, which becomes known by it.
    fn agent(&mut self, id: &AgentId) -> u32 {
        if let Some(&no) = self.agent_of.get(id) {
            return no;
        }
        let no = self.agents.insert(Agent {
            id: id.clone(),
            boot: ArcStr::new(),
            former_boot: ArcStr::new(),
            seq: None,
            heard_at: None,
            interval: USUAL_INTERVAL,
            load: Usage::default(),
            beat: 0,
            is_leaving: false,
            instances: Vec::new(),
        });
        self.agent_of.insert(id.clone(), no);
        no
    }

    /// An instance says on whose host it is; if it says nothing, it stays where it was.
    pub(super) fn join_agent(&mut self, no: u32, agent: Option<&AgentId>) {
        let Some(agent) = agent else { return };
        if self.instances[no].agent.is_some_and(|(known, _)| self.agents[known].id == *agent) {
            return;
        }
        if self.agents.len() >= self.settings.agents_max && !self.agent_of.contains_key(agent) {
            // It is served all the same; only its host's load is not known.
            return;
        }
        let agent = self.agent(agent);
        if self.move_to_agent(no, agent) && self.agents[agent].is_leaving {
            // Too late to begin there. Its state was not known to anybody, so nobody need be told.
            self.instances[no].live.set_state(State::Draining, Moment::START);
        }
    }

    /// Says whether it was elsewhere before.
    fn move_to_agent(&mut self, no: u32, agent: u32) -> bool {
        if self.instances[no].agent.is_some_and(|(known, _)| known == agent) {
            return false;
        }
        self.leave_agent(no);
        let list = &mut self.agents[agent].instances;
        // Numbers are 32 bits wide, so positions are.
        self.instances[no].agent = Some((agent, list.len() as u32));
        list.push(no);
        true
    }

    pub(super) fn leave_agent(&mut self, no: u32) {
        let Some((agent, at)) = self.instances[no].agent.take() else { return };
        self.instances[no].beat = 0;
        let list = &mut self.agents[agent].instances;
        list.swap_remove(at as usize);
        if let Some(&moved) = list.get(at as usize) {
            self.instances[moved].agent = Some((agent, at));
        }
    }

    /// Forgets agents that have no instances and have not been heard of for long.
    pub(super) fn forget_agents(&mut self, now: Moment) {
        let is_forgotten =
            |agent: &Agent| agent.instances.is_empty() && agent.heard_at.is_none_or(|at| now.since(at) > AGENT_KEPT);
        let forgotten: Vec<u32> =
            self.agents.iter().filter(|(_, agent)| is_forgotten(agent)).map(|(no, _)| no).collect();
        for no in forgotten {
            if let Some(agent) = self.agents.remove(no) {
                self.agent_of.remove(&agent.id);
            }
        }
    }
}
