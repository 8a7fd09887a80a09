//! Kills under load and in start-up, again and again.

use std::{env, fs, io::Write as _, path::Path, sync::Arc, time::Duration};

use prkdb_client::Transport;
use tokio::time::timeout;

use crate::{
    ledger::{Ledger, check_kept, find},
    server::{Server, client, random},
    writers::Writers,
};

/// A node that has not come as far by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of kills met.
#[derive(Debug, Default)]
struct Met {
    kills: usize,
    /// Kills with writes that were sent and not answered.
    unanswered: usize,
    /// Kills before the node was ready.
    start_up: usize,
}

/// What is done to a node between its death and its next life.
type Harm = fn(&Server, life: usize);

/// Kills a node so often and judges it after each start; returns what it met and held in the end.
async fn rounds(kills: usize, forgetful: bool, harm: Harm) -> Result<(Met, Arc<Ledger>), String> {
    let mut server = Server::start();
    let lines = server.log_lines();
    let ledger = Arc::new(Ledger::new());
    let writers = Writers::start(&server, &ledger, forgetful).await;
    let reader = client(server.address, Transport::Stream).await;
    let mut met = Met::default();
    while met.kills < kills {
        let more = 1 + u64::from(random() % 200);
        timeout(PATIENCE, ledger.wait_for(more)).await.map_err(|_| "no answers")?;
        met.kills += 1;
        met.unanswered += usize::from(ledger.open() > 0);
        server.kill();
        // What is answered from here on was on its way, and need not be known.
        let acked = ledger.acked();
        harm(&server, met.kills);
        if met.kills < kills && met.kills % 3 == 2 {
            met.kills += 1;
            let lines = usize::try_from(random()).unwrap() % lines;
            met.start_up += usize::from(server.kill_in_start_up(lines));
        }
        // Reading takes its time, and what is written meanwhile would have to be read too.
        ledger.pause(true);
        server.start_again();
        check_kept(&acked, &find(&reader).await)?;
        ledger.pause(false);
    }
    let has_checkpoint = server.data().join("shard-0000000001/MANIFEST").exists();
    if kills >= 10 && !has_checkpoint {
        return Err("no checkpoint was ever taken".to_owned());
    }
    timeout(PATIENCE, writers.finish()).await.map_err(|_| "writers do not end")?;
    ledger.judge(&find(&reader).await)?;
    Ok((met, ledger))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_repeat_nothing() {
    let kills = env::var("PRKDB_KILLS").map_or(25, |number| number.parse().unwrap());
    let (met, ledger) = rounds(kills, false, |_, _| {}).await.unwrap();
    let figures = format!(
        "{} kills, {} with unanswered writes, {} in start-up; {} records acknowledged and kept, {} \
         writes were applied and their answer lost\n",
        met.kills,
        met.unanswered,
        met.start_up,
        ledger.acked().len(),
        ledger.repeats(),
    );
    std::io::stdout().write_all(figures.as_bytes()).unwrap();
    assert!(met.unanswered * 2 >= met.kills, "{met:?}");
    assert!(met.start_up * 10 >= met.kills, "{met:?}");
    assert!(ledger.repeats() > 0, "no kill came between a write and its answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_writers_that_forget_their_producer_are_caught() {
    for _attempt in 0..10 {
        match rounds(5, true, |_, _| {}).await {
            Ok(_) => {}
            Err(reason) => {
                assert!(reason.starts_with("twice: "), "{reason}");
                return;
            }
        }
    }
    panic!("not caught");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_loss_of_a_whole_life_is_caught() {
    let harm = |server: &Server, life: usize| {
        let kept = server.home().join("kept");
        if life == 1 {
            copy(&server.data(), &kept);
        } else if kept.exists() {
            fs::remove_dir_all(server.data()).unwrap();
            fs::rename(&kept, server.data()).unwrap();
        }
    };
    let reason = rounds(6, false, harm).await.unwrap_err();
    assert!(reason.starts_with("lost: "), "{reason}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
