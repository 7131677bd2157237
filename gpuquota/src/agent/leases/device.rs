//! One device and the containers that share it.

use super::container::{ContainerDevice, Place, RENEWAL_NS, Said, Words};
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::lease::AGENT_TIMEOUT_NS;
use gpuquota_quota::share::scheduler::Scheduler;

/// What containers without a share and a request have of the device together at least, in percent.
const LEAST_REST: u32 = 10;
/// How often the agent looks while no container does anything.
pub const IDLE_LOOK_NS: u64 = 20_000_000;
/// Where no container was charged anything in this time it looks no more often, whatever they say that they want.
const CHARGED_NS: u64 = 1_000_000_000;
const _: () = assert!(RENEWAL_NS + IDLE_LOOK_NS < AGENT_TIMEOUT_NS);

/// All that share one device.
pub struct SharedDevice {
    pub uuid: String,
    containers: Vec<ContainerDevice>,
    clients: Vec<Client>,
    /// Those whose files are late now.
    late: Vec<(ContainerDevice, Client)>,
    scheduler: Scheduler,
    pub next_look_ns: u64,
    /// When everybody is asked again.
    ask_all_ns: u64,
}

impl SharedDevice {
    pub fn new(uuid: String, turns: bool) -> Self {
        let scheduler = if turns { Scheduler::of_turns() } else { Scheduler::default() };
        Self {
            uuid,
            containers: Vec::new(),
            clients: Vec::new(),
            late: Vec::new(),
            scheduler,
            next_look_ns: 0,
            ask_all_ns: 0,
        }
    }

    /// Adds a container; a region has a device once, whatever it says.
    pub fn add(&mut self, container: ContainerDevice, client: Client) {
        let inode = container.place.region.inode;
        if self.containers.iter().all(|other| other.place.region.inode != inode) {
            self.containers.push(container);
            self.clients.push(client);
        }
    }

    /// Where its containers say what they want; `None` for those who get no lease now in any case and are not asked so often,
    /// however many they are.
    pub fn places(&mut self, now: u64) -> Vec<Option<Place>> {
        let all = now >= self.ask_all_ns;
        if all {
            self.ask_all_ns = now + IDLE_LOOK_NS;
        }
        let both = self.containers.iter().zip(&self.clients);
        both.map(|(container, client)| (all || !client.is_excluded(now)).then(|| container.place.clone()))
            .collect()
    }

    /// Whether it takes leases: several containers share it, one of them by a share; or one has it alone, and may have
    /// all of it.
    pub fn needs_leases(&self) -> bool {
        match self.containers.as_slice() {
            [alone] => alone.borrows,
            all => all.iter().any(|container| container.request.is_some()),
        }
    }

    /// Goes on with what was known before: leases of those that were there go on.
    pub fn inherit(&mut self, mut before: Self) {
        let found: Vec<_> = self.containers.drain(..).zip(self.clients.drain(..)).collect();
        let stays = |old: &ContainerDevice| found.iter().any(|(new, _)| new.place.is(&old.place));
        before.take_out(|_, old| !stays(old));
        before.late.retain(|(old, _)| stays(old));
        for (container, client) in found {
            if before.late.iter().all(|(late, _)| !late.place.is(&container.place)) {
                before.add(container, client);
            }
        }
        *self = before;
    }

    /// Leaves out the containers whose files are late, and takes in again those whose files no longer are.
    pub fn leave_out_late(&mut self, now: u64) {
        let is_late = |container: &ContainerDevice| container.place.region.lateness.is_late(now);
        if self.late.is_empty() && !self.containers.iter().any(is_late) {
            return;
        }
        let (late, back): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(container, _)| is_late(container));
        self.late = late;
        let out = self.take_out(|_, container| is_late(container));
        self.late.extend(out);
        back.into_iter().for_each(|(container, client)| self.add(container, client));
    }

    /// Takes containers out of the schedule.
    fn take_out(&mut self, goes: impl Fn(usize, &ContainerDevice) -> bool) -> Vec<(ContainerDevice, Client)> {
        let all = self.containers.drain(..).zip(self.clients.drain(..)).enumerate();
        let (out, kept): (Vec<_>, Vec<_>) = all.partition(|(at, (container, _))| goes(*at, container));
        let (old, kept): (Vec<usize>, Vec<_>) = kept.into_iter().unzip();
        (self.containers, self.clients) = kept.into_iter().unzip();
        self.scheduler.keep(|at| old.iter().position(|old| *old == at));
        out.into_iter().map(|(_, one)| one).collect()
    }

    /// Takes in what the containers said, and forgets those whose files cannot be read. Answers what to write, and knows when
    /// to look again.
    pub fn look(&mut self, mut said: Vec<Said>, now: u64) -> Vec<Words> {
        self.take_out(|at, _| matches!(said.get(at), None | Some(Said::Unreadable)));
        said.retain(|said| !matches!(said, Said::Unreadable));
        for (container, said) in self.containers.iter_mut().zip(&said) {
            if let Said::So(statement) = said {
                container.hear(statement, now);
            }
        }
        let requests: u32 = self.containers.iter().filter_map(|container| container.request).sum();
        let others =
            self.containers.iter().filter(|container| container.request.is_none()).count().max(1) as u32;
        let rest = 100u32.saturating_sub(requests).max(LEAST_REST) / others;
        for ((client, container), said) in self.clients.iter_mut().zip(&self.containers).zip(&said) {
            if let Said::So(statement) = said {
                client.see(Demand { weight: container.request.unwrap_or(rest), ..statement.demand }, now);
            }
        }
        self.next_look_ns = self.scheduler.look(&mut self.clients, now);
        let is_away = self.clients.len() <= 1 || self.clients.iter().all(|client| client.is_away(now));
        if is_away || !self.containers.iter().any(|container| container.was_charged(now, CHARGED_NS)) {
            self.next_look_ns = now + IDLE_LOOK_NS;
        }
        let containers = self.containers.iter_mut().zip(&self.clients);
        containers.filter_map(|(container, client)| container.renew(client, now)).collect()
    }
}
