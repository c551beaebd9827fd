//! The end-to-end benchmark: the same real Apache Kafka broker reached directly, through haproxy
//! in TCP mode and through Kordon with ACLs on, in alternation, on one machine. What each figure
//! means stands in `benches/README.md`.

mod broker;
mod case;
mod clients;
mod fetched;
mod load;
mod memory;
mod process;
mod protocol;
mod report;
mod route;
mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;

use broker::Broker;
use case::{CASES, Case, Client, Ground};
use report::Report;
use route::{Launcher, Route, Running};

/// A result whose error is told to the person at the terminal.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Starts of each proxy in a round.
const STARTS: usize = 3;

/// Compares direct, haproxy and Kordon in front of one real broker.
#[derive(Parser)]
#[command(after_help = "Example: cargo bench --bench end_to_end -- --quick")]
struct Options {
    /// One round, less data, this generator's load only: about a minute
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 5, with --quick 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Routes to compare [default: all that can be found]
    #[arg(long, value_delimiter = ',')]
    routes: Option<Vec<Route>>,
    /// Only cases whose name contains this; may be repeated; `memory` and `start` count too
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Print Markdown tables
    #[arg(long)]
    markdown: bool,
    /// Also print what broker and generator cost, which is otherwise only in the JSON
    #[arg(long)]
    all_figures: bool,
    /// Write every value to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the broker's data [default: /dev/shm where there is one, so that no disk is
    /// measured]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Exit 1 where a target is missed
    #[arg(long)]
    strict: bool,
    /// Cargo says so to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|part| name.contains(part.as_str()))
    }

    fn wants_case(&self, case: &Case) -> bool {
        self.wants(case.name) && (case.quick || !self.quick || !self.cases.is_empty())
    }
}

fn main() -> std::process::ExitCode {
    match run(&Options::parse()) {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Outcome<bool> {
    let begun = Instant::now();
    let kordon = kordon_binary();
    let routes = routes(options, &kordon)?;
    let shm = Path::new("/dev/shm");
    let base = match &options.data {
        Some(folder) => folder.clone(),
        None if shm.is_dir() => shm.to_path_buf(),
        None => std::env::temp_dir(),
    };
    let folder = tempfile::Builder::new()
        .prefix("kordon-bench-")
        .tempdir_in(base)?;
    let load_before = load_average();
    let broker = Broker::start(folder.path())?;
    let launcher = Launcher::new(folder.path(), broker.ports, &kordon)?;
    let mut ground = prepare(options, broker, folder.path())?;
    let mut report = Report::default();
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    warm_up(options, &launcher, &mut ground)?;
    for round in 0..rounds {
        // Each round begins with another route, so that none always has the same neighbour.
        let mut order = routes.clone();
        order.rotate_left(round % routes.len());
        eprintln!(
            "round {} of {rounds}, {:.0} s",
            round + 1,
            begun.elapsed().as_secs_f64()
        );
        starts(options, &launcher, &order, &mut report)?;
        memory(options, &launcher, &order, &ground, &mut report)?;
        let running: Vec<Running> = order
            .iter()
            .map(|&route| launcher.start(route))
            .collect::<Outcome<_>>()?;
        for running in &running {
            if let Some(pid) = running.pid() {
                eprintln!("  {} is process {pid}", running.route); // for `perf record -p`
            }
        }
        for case in CASES.iter().filter(|case| options.wants_case(case)) {
            if case.client == Client::Librdkafka && !process::is_installed("kcat") {
                continue;
            }
            for running in &running {
                ground
                    .run(case, running, &mut report)
                    .map_err(|error| format!("{}: {}", case.name, running.blame(&error)))?;
            }
        }
    }
    let mut about = machine();
    about.push(("load average before".to_owned(), load_before));
    about.push(("data".to_owned(), folder.path().display().to_string()));
    about.push(("rounds".to_owned(), rounds.to_string()));
    about.push((
        "seconds".to_owned(),
        format!("{:.0}", begun.elapsed().as_secs_f64()),
    ));
    print(options, &report, &about)
}

/// Routes asked for, or all whose programs are there.
fn routes(options: &Options, kordon: &Path) -> Outcome<Vec<Route>> {
    if let Some(routes) = &options.routes {
        if routes.contains(&Route::Kordon) && !kordon.is_file() {
            return Err(format!("no kordon at `{}`; set KORDON_BIN", kordon.display()).into());
        }
        return Ok(routes.clone());
    }
    let mut routes = vec![Route::Direct];
    if process::is_installed("haproxy") {
        routes.push(Route::Haproxy);
    } else {
        eprintln!("haproxy is not installed: left out");
    }
    if kordon.is_file() {
        routes.push(Route::Kordon);
    } else {
        eprintln!(
            "no kordon at `{}`: left out; set KORDON_BIN",
            kordon.display()
        );
    }
    Ok(routes)
}

/// `KORDON_BIN`, else the binary cargo built beside this benchmark.
fn kordon_binary() -> PathBuf {
    std::env::var_os("KORDON_BIN")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_kordon").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("target/release/kordon"))
}

/// Fills the topics that are read and the file kcat sends.
fn prepare(options: &Options, broker: Broker, folder: &Path) -> Outcome<Ground> {
    let address = format!("127.0.0.1:{}", broker.ports.direct);
    let (mib, scale) = if options.quick {
        (384, 0.25)
    } else {
        (1024, 1.0)
    };
    let read_bytes = mib << 20;
    let fill = |topic: &str, size: usize, bytes: u64| {
        memory::fill(
            &address,
            topic,
            case::PARTITIONS,
            &memory::filling(size),
            bytes,
        )
        .map(|end| (topic.to_owned(), end))
    };
    let read_1024 = fill("bench.read-1024", 1024, read_bytes)?;
    let read_100 = fill("bench.read-100", 100, read_bytes / 2)?;
    let lines = folder.join("lines");
    let ground = Ground {
        broker,
        read_bytes: read_1024.1 as u64 * case::PARTITIONS as u64 * 1024,
        read_1024,
        read_100,
        lines,
        scale,
        latency_seconds: if options.quick { 3 } else { 6 },
        topics_made: 0,
    };
    let librdkafka = CASES.iter().any(|case| {
        case.client == Client::Librdkafka
            && case.kind != case::Kind::Consume
            && options.wants_case(case)
    });
    if librdkafka {
        clients::write_lines(&ground.lines, ground.lines_bytes())?;
    }
    Ok(ground)
}

/// The broker's code is compiled while it runs: what it does in its first seconds is not counted.
fn warm_up(options: &Options, launcher: &Launcher, ground: &mut Ground) -> Outcome<()> {
    let direct = launcher.start(Route::Direct)?;
    let mut ignored = Report::default();
    let times = if options.quick { 1 } else { 2 };
    for _ in 0..times {
        for case in CASES.iter().filter(|case| case.client == Client::Raw) {
            if options.wants_case(case) && case.kind != case::Kind::RoundTrip {
                ground.run(case, &direct, &mut ignored)?;
            }
        }
    }
    Ok(())
}

fn starts(
    options: &Options,
    launcher: &Launcher,
    order: &[Route],
    report: &mut Report,
) -> Outcome<()> {
    if !options.wants(target::START) {
        return Ok(());
    }
    for &route in order.iter().filter(|&&route| route != Route::Direct) {
        for _ in 0..STARTS {
            let seconds = launcher.start(route)?.first_answer.as_secs_f64();
            report.note(target::START, "first Metadata s", route, seconds);
        }
    }
    Ok(())
}

fn memory(
    options: &Options,
    launcher: &Launcher,
    order: &[Route],
    ground: &Ground,
    report: &mut Report,
) -> Outcome<()> {
    if !options.wants(target::MEMORY) {
        return Ok(());
    }
    let topic = ground.read_1024.0.as_str();
    for &route in order {
        let running = launcher.start(route)?;
        let Some(pid) = running.pid() else { continue };
        let idle = memory::idle(&running, pid, topic).map_err(|error| running.blame(&error))?;
        let mut note = |figure: &str, value| report.note(target::MEMORY, figure, route, value);
        note("idle MiB", idle.idle_mib);
        for (count, value) in [1, 100, 1000].iter().zip(idle.with_connections_mib) {
            note(&format!("MiB with {count} connections"), value);
        }
        note("KiB a connection", idle.connection_kib);
        note(
            "KiB a connection that has fetched",
            idle.worked_connection_kib,
        );
        drop(running);
        let running = launcher.start(route)?;
        let Some(pid) = running.pid() else { continue };
        let answers = if options.quick { 6 } else { 15 };
        let large =
            memory::large(&running, pid, topic, answers).map_err(|error| running.blame(&error))?;
        note("peak MiB, 50 MiB answers", large.peak_mib);
        note("growth MiB, 50 MiB answers", large.growth_mib);
        note("peak MiB, 8 slow consumers", large.slow_peak_mib);
    }
    Ok(())
}

fn print(options: &Options, report: &Report, about: &[(String, String)]) -> Outcome<bool> {
    for (key, value) in about {
        println!("{}{key}: {value}", if options.markdown { "- " } else { "" });
    }
    println!("\n{}", report.table(options.markdown, options.all_figures));
    let verdicts = target::judge(report);
    let met = verdicts.iter().all(|verdict| verdict.met);
    if !verdicts.is_empty() {
        let rows = target::rows(&verdicts);
        let text = if options.markdown {
            report::as_markdown(&rows)
        } else {
            report::as_text(&rows)
        };
        println!("{text}");
    }
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&report.json(about))?)?;
    }
    Ok(met || !options.strict)
}

/// What the figures were measured on.
fn machine() -> Vec<(String, String)> {
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let row = |key: &str, value: String| (key.to_owned(), value);
    vec![
        row("processor", first("/proc/cpuinfo", "model name")),
        row("cores", cores.to_string()),
        row("memory", first("/proc/meminfo", "MemTotal")),
        row("kernel", kernel.trim().to_owned()),
        row("broker", format!("Apache Kafka {}", broker::VERSION)),
    ]
}

fn load_average() -> String {
    fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
