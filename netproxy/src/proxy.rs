//! The loop: hear what changed, plan, apply, repeat.
//!
//! ```text
//!   informers ──▶ directory ──▶ compile ──▶ plan ──▶ commits (arrive, depart, forget) ──▶ stale bonds and flows
//!                     │                       ▲
//!                     └──▶ DNS answers        └── the table read back: at the start, and when someone else changed it
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_client::{Client, Informer, Scope, Subscription};
use gantry_env::{Backoff, Env, chain};
use gantry_kube::{Ref, resource};
use ipnet::Ipv4Net;
use parking_lot::RwLock;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::apply::{ApplyError, Kernel};
use crate::directory::Directory;
use crate::dns::{self, Dns};
use crate::image::Image;
use crate::model::{Service, Slice};
use crate::plan::{self, Claims, Plan, Wanted};
use crate::ruleset::Cluster;
use crate::trace::Programmed;

/// How soon a flushed table is noticed. Asking for the generation is one system call.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often the elements are read back, for changes that left the rules alone.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// Beyond it, the table is made anew at the next reconcile.
const UNUSED_SETS_MAX: usize = 32;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Config {
    /// As EndpointSlices name it: what makes an endpoint local.
    pub node_name: String,
    pub cluster_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// `None`: no DNS on this node.
    pub dns: Option<dns::Config>,
    /// Where it is noted when a pod was first led to.
    pub programmed: Programmed,
}

/// Why the proxy could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("begin to serve services on this node")]
    Apply(#[source] ApplyError),
    #[error("begin to serve DNS on this node")]
    Dns(#[source] dns::DnsError),
    #[error("a worker thread ended early")]
    Worker(#[source] tokio::task::JoinError),
}

/// Services and DNS of one node.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Serves until `stop`. What the table holds stays when it ends: an upgrade interrupts nobody.
    pub async fn run(config: Config, client: Client, env: Env, stop: CancellationToken) -> Result<(), ProxyError> {
        // However this ends, what it spawned ends with it: it may be begun again.
        let stop = stop.child_token();
        let _ends = stop.clone().drop_guard();
        let client = client.named("gantry-netproxy");
        let services = Informer::spawn(
            client.clone(),
            &resource::SERVICE,
            Scope::default(),
            env.clone(),
            stop.clone(),
            |object| Service::project(&object),
        );
        let slices =
            Informer::spawn(client, &resource::ENDPOINT_SLICE, Scope::default(), env.clone(), stop.clone(), |object| {
                Slice::project(&object)
            });
        let directory = Arc::new(RwLock::new(Directory::default()));
        let kernel = Kernel::open(cluster(&config)).map_err(ProxyError::Apply)?;
        kernel.ensure_routes().map_err(ProxyError::Apply)?;
        if let Some(dns) = &config.dns {
            dns.check().map_err(ProxyError::Dns)?;
            let serve = serve_dns(dns.clone(), directory.clone(), env.clone(), stop.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(serve));
        }
        // Both lists first: a service whose slices are not in yet would refuse its clients.
        let synced = async { services.synced().await && slices.synced().await };
        if stop.run_until_cancelled(synced).await != Some(true) {
            return Ok(());
        }
        let state = State {
            kernel,
            claims: Claims::default(),
            image: None,
            generation: 0,
            node: config.node_name.clone(),
            directory,
        };
        let turns = Turns { env, programmed: config.programmed, state: Some(state) };
        turns.run(services.subscribe(), slices.subscribe(), stop).await
    }

    /// Removes the table, routes and addresses. Flows that are translated already live on until they end.
    pub fn cleanup(config: &Config) -> Result<(), ApplyError> {
        Kernel::open(cluster(config))?.cleanup()
    }
}

/// Services do not wait for DNS: where its port is held (by one of us that is about to end, say), it is tried again.
async fn serve_dns(config: dns::Config, directory: Arc<RwLock<Directory>>, env: Env, stop: CancellationToken) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        match Dns::bind(config.clone(), directory.clone(), env.clone()) {
            Ok(dns) => {
                info!(address = %config.listen, "DNS serves");
                return dns.serve(stop).await;
            }
            Err(error) => warn!(error = %chain(&error), "DNS does not serve, trying again"),
        }
        tokio::time::sleep(backoff.next(&env.rng)).await;
    }
}

fn cluster(config: &Config) -> Cluster {
    Cluster {
        pods: config.cluster_cidr,
        services: config.service_cidr,
        dns: config.dns.as_ref().map(|dns| (dns.service_ip, dns.listen)),
    }
}

/// What the blocking half works on: netlink calls are short, but a first load is not.
struct State {
    kernel: Kernel,
    claims: Claims,
    /// What the table holds; `None` where that is to be read again.
    image: Option<Image>,
    generation: u32,
    node: String,
    directory: Arc<RwLock<Directory>>,
}

impl State {
    /// Claims of these services as they are now.
    fn claim(&mut self, touched: &BTreeSet<Ref>, image: &Image) -> Wanted {
        let directory = self.directory.read();
        let mut wanted = Wanted::new();
        for at in touched {
            let compiled = directory.service(at).map(|service| {
                let slices: Vec<_> = directory.slices(at).cloned().collect();
                plan::compile(service, &slices, &self.node, image)
            });
            self.claims.replace(at, compiled.unwrap_or_default(), &mut wanted);
        }
        wanted
    }

    /// Brings the table to what these services ask for, or, where it has to be read first, to what all ask for.
    fn turn(&mut self, touched: &BTreeSet<Ref>) -> Result<(), ApplyError> {
        let Some(mut image) = self.image.take() else { return self.reconcile() };
        let wanted = self.claim(touched, &image);
        let plan = plan::plan(&image, &wanted);
        if !plan.is_empty() {
            self.kernel.apply(&plan, &mut image)?;
            self.settle(&plan, &image)?;
        }
        self.image = Some(image);
        Ok(())
    }

    /// Everything anew from what the kernel says: at the start, and after anything that did not go as planned.
    fn reconcile(&mut self) -> Result<(), ApplyError> {
        let all: BTreeSet<Ref> = {
            let directory = self.directory.read();
            directory.services().map(|service| service.at.clone()).chain(self.claims.services().cloned()).collect()
        };
        let read = self.kernel.read()?.filter(|image| unused(image) <= UNUSED_SETS_MAX);
        let found = read.is_some();
        let mut image = read.unwrap_or_default();
        self.claim(&all, &image);
        let plan = plan::plan(&image, &self.claims.wanted(&image));
        if found {
            self.kernel.apply(&plan, &mut image)?;
        } else {
            image = self.kernel.rebuild(&plan)?;
        }
        info!(services = all.len(), kept = found, changed = plan.arrive.len() + plan.depart.len(), "table reconciled");
        self.kernel.ensure_routes()?;
        self.kernel.forget_affinity(&image)?;
        self.kernel.forget_flows(&image)?;
        self.generation = self.kernel.generation()?;
        self.image = Some(image);
        Ok(())
    }

    fn settle(&mut self, plan: &Plan, image: &Image) -> Result<(), ApplyError> {
        if plan.touches_affinity() {
            self.kernel.forget_affinity(image)?;
        }
        if plan.touches_udp() {
            self.kernel.forget_flows(image)?;
        }
        self.generation = self.kernel.generation()?;
        Ok(())
    }

    /// Whether someone else took rules away; asked only where someone committed anything.
    fn watch(&mut self) -> Result<(), ApplyError> {
        let Some(image) = &self.image else { return self.reconcile() };
        let generation = self.kernel.generation()?;
        if generation == self.generation {
            return Ok(());
        }
        self.generation = generation;
        if self.kernel.stands(image)? {
            return Ok(());
        }
        warn!("table gantry was changed by someone else, healing it");
        self.image = None;
        self.reconcile()
    }

    /// Whether the elements are what they should be. The routes are made again without being asked for.
    fn audit(&mut self) -> Result<(), ApplyError> {
        let Some(image) = &self.image else { return self.reconcile() };
        if self.kernel.read()?.as_ref() == Some(image) {
            return self.kernel.ensure_routes();
        }
        warn!("table gantry does not hold what it should, healing it");
        self.image = None;
        self.reconcile()
    }
}

/// Sets that were made when needed and lead nowhere now: every new connection looks into each of them.
fn unused(image: &Image) -> usize {
    image.on_demand().filter(|set| image.elements(*set).next().is_none()).count()
}

#[derive(Clone, Debug)]
enum Event {
    Changed(BTreeSet<Ref>),
    Watch,
    Audit,
    Stop,
}

struct Turns {
    env: Env,
    programmed: Programmed,
    /// Away only while a turn runs.
    state: Option<State>,
}

impl Turns {
    async fn run(
        mut self,
        mut services: Subscription<Service>,
        mut slices: Subscription<Slice>,
        stop: CancellationToken,
    ) -> Result<(), ProxyError> {
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        let mut audit = tokio::time::interval(AUDIT_INTERVAL);
        for timer in [&mut watch, &mut audit] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer.reset();
        }
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut failed;
        let first = self.hear(services.take(), slices.take());
        if let Some(state) = &self.state {
            state.directory.write().set_complete();
        }
        let mut event = Event::Changed(first);
        // Services whose change has not reached the table yet.
        let mut due = BTreeSet::new();
        loop {
            match &mut event {
                Event::Stop => return Ok(()),
                Event::Changed(touched) => touched.append(&mut due),
                Event::Watch | Event::Audit => {}
            }
            match self.turn(event.clone()).await? {
                Ok(()) => {
                    backoff.reset();
                    failed = false;
                }
                Err(error) => {
                    warn!(error = %chain(&error), "table not brought up to date, trying again");
                    failed = true;
                    if let Event::Changed(touched) = event {
                        due = touched;
                    }
                }
            }
            let retry = backoff.clone().next(&self.env.rng);
            event = tokio::select! {
                biased;
                // A token stays cancelled.
                () = stop.cancelled() => Event::Stop,
                // Nothing is taken before these return.
                changes = services.changes() => Event::Changed(self.hear(changes, slices.take())),
                changes = slices.changes() => Event::Changed(self.hear(services.take(), changes)),
                // A timer that is dropped is made again at the next turn.
                () = tokio::time::sleep(retry), if failed => {
                    backoff.next(&self.env.rng);
                    Event::Changed(BTreeSet::new())
                }
                // Ticks that are not taken stay due.
                _ = watch.tick() => Event::Watch,
                _ = audit.tick() => Event::Audit,
            };
        }
    }

    /// Takes changes into the directory; the services that they touch come back.
    fn hear(
        &mut self,
        services: Vec<gantry_client::Change<Service>>,
        slices: Vec<gantry_client::Change<Slice>>,
    ) -> BTreeSet<Ref> {
        let Some(state) = &self.state else { return BTreeSet::new() };
        let mut directory = state.directory.write();
        let mut touched: BTreeSet<Ref> =
            services.into_iter().map(|change| directory.set_service(change.at, change.now)).collect();
        for change in slices {
            touched.extend(directory.set_slice(change.at, change.now));
        }
        touched
    }

    async fn turn(&mut self, event: Event) -> Result<Result<(), ApplyError>, ProxyError> {
        let Some(mut state) = self.state.take() else { return Ok(Ok(())) };
        let touched = if let Event::Changed(touched) = &event { touched.clone() } else { BTreeSet::new() };
        let work = move || {
            let answer = match event {
                Event::Changed(touched) => state.turn(&touched),
                Event::Watch => state.watch(),
                Event::Audit => state.audit(),
                Event::Stop => Ok(()),
            };
            if answer.is_err() {
                // Whatever is half done is read back before the next try.
                state.image = None;
            }
            (state, answer)
        };
        let (state, answer) = tokio::task::spawn_blocking(work).await.map_err(ProxyError::Worker)?;
        if answer.is_ok() {
            self.note(&state, &touched);
        }
        self.state = Some(state);
        Ok(answer)
    }

    fn note(&self, state: &State, touched: &BTreeSet<Ref>) {
        let directory = state.directory.read();
        let now = self.env.clock.now();
        for at in touched {
            debug!(service = %at, "rules brought up to date");
            for slice in directory.slices(at) {
                let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
                self.programmed.note(ready.map(|endpoint| endpoint.pod_uid.as_str()), now);
            }
        }
    }
}
