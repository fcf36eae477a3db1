//! A progress bar for people.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{gather::Count, shared::Shared};

/// How often the bar is drawn at most.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a line is printed at most, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Draws until all have ended, or the client is over.
pub(super) fn show(shared: &Shared, futures: &impl Count) {
    let total = futures.spans().iter().map(|span| span.count).sum();
    if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {percent}% {elapsed} left {eta}");
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        watch(shared, futures, total, |done| bar.set_position(done));
        bar.finish();
    } else {
        let mut last: Option<(u64, Instant)> = None;
        watch(shared, futures, total, |done| {
            let due = last.is_none_or(|(said, at)| done != said && (done == total || at.elapsed() >= LINE_EVERY));
            if due {
                last = Some((done, now()));
                eprintln!("{done}/{total} done");
            }
        });
    }
}

fn watch(shared: &Shared, futures: &impl Count, total: u64, mut draw: impl FnMut(u64)) {
    loop {
        let done = futures.done();
        draw(done);
        if done >= total {
            return;
        }
        // Woken by whatever comes; redrawn after a while in any case, for the clock.
        let since = now();
        let over = shared.wait_until(Some(REDRAW), |_| None::<()>).is_err();
        if over {
            return;
        }
        std::thread::sleep(REDRAW.saturating_sub(since.elapsed()).min(REDRAW / 2));
    }
}

fn now() -> Instant {
    Instant::now()
}
