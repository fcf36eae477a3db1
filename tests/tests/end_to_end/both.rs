//! What must be the same in-process and on a fleet.

use bytes::Bytes;
use quicsand::{Error, Status, TaskErrorKind};

use crate::{every_way, tasks::*};

#[test]
fn a_task_is_still_a_function() {
    assert_eq!(inc(1), 2);
    assert_eq!((1..4).map(*inc).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(fibonacci(10), 55);
}

#[test]
fn one_call() {
    every_way(|client| {
        assert_eq!(client.submit(inc, 1).result().expect("runs"), 2);
        assert_eq!(client.submit(zero, ()).result().expect("runs"), 0);
        client.submit(nothing, 1).result().expect("runs");
        assert_eq!(client.submit(greet, ("you", 2)).result().expect("runs"), "hello you, hello you");
        let text = client.submit(eight, (1, 2, 3, 4, -5, 1.5, 'x', true)).result().expect("runs");
        assert_eq!(text, "1 2 3 4 -5 1.5 x true");
        assert_eq!(client.submit(fibonacci, 20).result().expect("runs"), 6765);
    });
}

#[test]
fn values_of_any_type() {
    every_way(|client| {
        let point = Point { x: 1.5, y: f64::MIN_POSITIVE, label: Some("ä".into()) };
        let mirrored = client.submit(mirror, &point).result().expect("runs");
        assert_eq!(mirrored, Point { x: -1.5, y: f64::MIN_POSITIVE, label: Some("Ä".into()) });
        let words = client.submit(count_words, "a b a").result().expect("runs");
        assert_eq!((words["a"], words["b"]), (2, 1));
    });
}

#[test]
fn large_bytes() {
    every_way(|client| {
        // Around what travels in messages, what is shared, and what is put together on another thread.
        for len in [1, 65_533, 65_536, 65_537, (1 << 20) - 4, 1 << 20, 5_000_000] {
            let data: Bytes = (0..len).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
            let scattered = client.scatter(data.clone());
            let twice = client.submit(rest, client.submit(rest, &scattered));
            let (back, twice, direct) = client.gather((scattered, twice, client.submit(rest, &data))).expect("all run");
            assert!(back == data && twice == data.slice(2.min(data.len())..) && direct == data.slice(1..), "{len} bytes");
        }
    });
}

#[test]
fn bytes_that_a_task_keeps_stay_as_they_are() {
    every_way(|client| {
        for byte in 1..20 {
            let kept = client.submit(keep, Bytes::from(vec![byte; 500_000 + usize::from(byte)]));
            assert!(kept.result().expect("runs"), "of call {byte}");
        }
    });
}

#[test]
fn futures_as_arguments() {
    every_way(|client| {
        let x = client.submit(inc, 1);
        let y = client.submit(add, (&x, 5));
        let many = client.map(inc, 0..100);
        let total = client.submit(sum, &many);
        let list = vec![x.clone(), y.clone()];
        let of_list = client.submit(sum, &list);
        let of_array = client.submit(sum, [&x, &y, &x]);
        let incremented = client.map(inc, &many);
        let shifted = client.map(add, many.iter().map(|future| (future, &y)));
        let gathered = client.gather((y, total, of_list, of_array, incremented, shifted)).expect("all run");
        let (y, total, of_list, of_array, incremented, shifted) = gathered;
        assert_eq!((y, total, of_list, of_array), (7, 5050, 9, 11));
        assert!(incremented.into_iter().eq(2..102));
        assert!(shifted.into_iter().eq(8..108));
    });
}

#[test]
fn a_long_chain() {
    every_way(|client| {
        let mut x = client.submit(inc, 0);
        for _ in 1..500 {
            x = client.submit(inc, &x);
        }
        assert_eq!(x.result().expect("runs"), 500);
    });
}

#[test]
fn a_tree() {
    every_way(|client| {
        let mut level: Vec<_> = client.map(inc, 0..256).into_iter().collect();
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| client.submit(add, (&pair[0], &pair[1]))).collect();
        }
        assert_eq!(level[0].result().expect("runs"), (1..=256).sum::<i64>());
    });
}

#[test]
fn a_large_map_in_order() {
    every_way(|client| {
        let many = client.map(inc, 0..100_000);
        assert_eq!(many.len(), 100_000);
        let results = client.gather(&many).expect("all run");
        assert!(results.into_iter().eq(1..=100_000));
        let (front, back) = many.split_at(70_000);
        assert_eq!((front.len(), back.len()), (70_000, 30_000));
        assert_eq!(back.get(0).expect("there").result().expect("ran"), 70_001);
        assert!(many.get(100_000).is_none());
    });
}

#[test]
fn empty_maps() {
    every_way(|client| {
        let none = client.map(inc, std::iter::empty::<i64>());
        assert!(none.is_empty());
        assert!(client.gather(&none).expect("nothing").is_empty());
        assert_eq!(client.submit(sum, &none).result().expect("runs"), 0);
        assert_eq!(client.batched_map(inc, std::iter::empty::<i64>()).count(), 0);
    });
}

#[test]
fn batched_maps_are_lazy_and_in_order() {
    every_way(|client| {
        let drawn = std::cell::Cell::new(0_i64);
        let endless = std::iter::from_fn(|| {
            drawn.set(drawn.get() + 1);
            Some(drawn.get())
        });
        let mut results = client.batched_map(inc, endless);
        for expected in 2..200_002 {
            assert_eq!(results.next().expect("endless").expect("runs"), expected);
        }
        assert!(drawn.get() < 600_000, "drew {} items for 200,000 results", drawn.get());
        drop(results);
        let finite: i64 = client.batched_map(inc, 0..100_000).map(|result| result.expect("runs")).sum();
        assert_eq!(finite, (1..=100_000).sum::<i64>());
    });
}

#[test]
fn errors_of_items_stay_with_their_items() {
    every_way(|client| {
        let futures = client.map(odd_only, 0..100);
        let results = client.gather_all(&futures);
        for (x, result) in (0_i64..).zip(&results) {
            match result {
                Ok(value) => assert_eq!((x % 2, *value), (1, x)),
                Err(Error::Task(error)) => {
                    assert_eq!((x % 2, &error.kind), (0, &TaskErrorKind::Returned));
                    assert_eq!((&*error.message, error.key.index), (&*format!("{x} is even"), x as u64));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let Err(Error::Task(first)) = client.gather(&futures) else { panic!("evens fail") };
        assert_eq!(first.message, "0 is even");
        assert_eq!(futures.get(0).expect("there").status(), Status::Erred);
        assert_eq!(futures.get(1).expect("there").status(), Status::Memory);
        let in_batches: Vec<_> = client.batched_map(odd_only, 0..100).map(|result| result.is_ok()).collect();
        assert!(in_batches.iter().enumerate().all(|(x, ok)| *ok == (x % 2 == 1)));
    });
}

#[test]
fn a_panic_tells_message_and_place_and_harms_nobody_else() {
    every_way(|client| {
        let futures = client.map(panics_at, (0..1000).map(|x| (x, 777)));
        for (x, result) in (0..).zip(client.gather_all(&futures)) {
            match result {
                Ok(value) => assert_eq!(value, x),
                Err(Error::Task(error)) => {
                    assert_eq!((x, &error.kind), (777, &TaskErrorKind::Panicked));
                    assert_eq!((&*error.message, error.key.index), ("cannot bear 777", 777));
                    assert!(error.location.as_deref().expect("known").contains("tasks.rs:"), "{error}");
                    if !client.is_local() {
                        assert_eq!(error.log.trim_end(), "looking at 777");
                        assert!(error.backtrace.contains("panics_at"), "{error}");
                    }
                }
                Err(error) => panic!("item {x}: {error}"),
            }
        }
    });
}

#[test]
fn dependents_fail_with_the_first_cause() {
    every_way(|client| {
        let bad = client.submit(odd_only, 2);
        let next = client.submit(inc, &bad);
        let last = client.submit(add, (&next, 1));
        let Err(Error::Task(error)) = last.result() else { panic!("succeeded") };
        assert_eq!((&*error.task, &*error.message), ("odd_only", "2 is even"));
        assert_eq!(error.key, bad.key());
    });
}

#[test]
fn retries_are_counted() {
    every_way(|client| {
        let Err(Error::Task(error)) = client.task(odd_only).retries(2).submit(2).result() else { panic!("succeeded") };
        assert_eq!(error.attempts, 3);
        assert_eq!(client.task(inc).retries(3).priority(5).name("other").submit(1).result().expect("runs"), 2);
    });
}

#[test]
fn scattered_data_reaches_every_task() {
    every_way(|client| {
        let table: Vec<i64> = (0..300_000).collect();
        let table = client.scatter(table);
        let picked = client.map(pick, (0..200_usize).map(|i| (&table, i * 1000)));
        assert!(client.gather(&picked).expect("all run").into_iter().eq((0..200).map(|i| i * 1000)));
        assert_eq!(table.result().expect("is there").len(), 300_000);
        assert_eq!(client.scatter(7_i64).result().expect("is there"), 7);
    });
}

#[test]
fn large_arguments_and_results() {
    every_way(|client| {
        let large = client.submit(repeat, (7, 5 << 20));
        let len = client.submit(length, &large);
        assert_eq!(len.result().expect("runs"), 5 << 20);
        assert!(large.result().expect("runs").iter().all(|&byte| byte == 7));
        let argument = vec![1_u8; 3 << 20];
        assert_eq!(client.submit(length, &argument).result().expect("runs"), 3 << 20);
        let chunks = client.map(repeat, (0..10_u8).map(|byte| (byte, 200_000)));
        let firsts = client.submit(first_bytes, &chunks);
        assert!(firsts.result().expect("runs").into_iter().eq(0..10));
        let chunks = client.gather(chunks).expect("all run");
        assert!(chunks.iter().zip(0..).all(|(chunk, byte)| chunk.len() == 200_000 && chunk[0] == byte));
    });
}

#[test]
fn results_as_they_come() {
    every_way(|client| {
        let futures = client.map(inc, 0..1000);
        let mut seen: Vec<_> = client.as_completed(&futures).map(|(at, result)| (at as i64, result.expect("runs"))).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq((0..1000).map(|x| (x, x + 1))));
    });
}

#[test]
fn counts_and_progress() {
    every_way(|client| {
        let futures = client.map(odd_only, 0..100);
        client.progress(&futures);
        let counts = client.counts(&futures).expect("answered");
        assert_eq!((counts.memory, counts.erred), (50, 50));
        assert_eq!((counts.waiting, counts.queued, counts.processing), (0, 0, 0));
    });
}

#[test]
fn awaiting_under_any_executor() {
    every_way(|client| {
        let future = client.submit(inc, 41);
        let value = pollster(async { client.submit_async(inc, future).await.await });
        assert_eq!(value.expect("runs"), 43);
    });
}

#[test]
fn time_limits_resolve_the_future() {
    let test = |client: &quicsand::Client| {
        let asleep = client.submit(nap, 60_000);
        let Err(Error::Task(error)) = asleep.result() else { panic!("overslept") };
        assert_eq!(error.kind, TaskErrorKind::TimeLimit { limit_ms: 100 });
        assert_eq!(client.submit(nap, 1).result().expect("in time"), 1);
    };
    test(&quicsand::Client::local().threads(1));
    test(&crate::fleet());
}

#[test]
fn cancelled_calls_and_their_dependents_end_at_once() {
    let test = |client: &quicsand::Client| {
        let asleep = client.submit(sleep, 3_600_000);
        let dependent = client.submit(sleep, &asleep);
        asleep.cancel();
        assert!(matches!(asleep.result(), Err(Error::Cancelled { key }) if key == asleep.key()));
        assert!(matches!(dependent.result(), Err(Error::Cancelled { .. })));
        assert_eq!(asleep.status(), Status::Cancelled);
        assert_eq!(client.submit(inc, 1).result().expect("the slot is free"), 2);
    };
    test(&quicsand::Client::local().threads(1));
    test(&crate::fleet());
}

#[test]
fn dropped_calls_free_their_slots() {
    let test = |client: &quicsand::Client| {
        for _ in 0..20 {
            drop(client.submit(sleep, 3_600_000));
        }
        assert_eq!(client.submit(inc, 1).result().expect("runs"), 2);
    };
    test(&quicsand::Client::local().threads(1));
    test(&crate::fleet());
}

#[test]
fn nothing_waits_behind_a_call_that_takes_much_longer_than_others() {
    let test = |client: &quicsand::Client| {
        let quick = client.map(sleep, std::iter::repeat_n(0, 1000));
        client.gather(&quick).expect("all run");
        // So that every thread rests.
        std::thread::sleep(std::time::Duration::from_millis(100));
        // Many of these are one batch, as quick as the others were.
        let naps = client.map(sleep, [3_600_000, 3_600_000].into_iter().chain(std::iter::repeat_n(0, 1000)));
        let (slow, behind) = naps.split_at(2);
        assert_eq!(client.gather(&behind).expect("all run"), vec![0; 1000]);
        slow.cancel();
        assert!(slow.into_iter().all(|one| one.result().is_err()));
    };
    test(&quicsand::Client::local().threads(4));
    test(&crate::fleet());
}

#[test]
fn futures_of_another_client_are_refused() {
    let one = quicsand::Client::local();
    let future = one.submit(inc, 1);
    every_way(|other| {
        let refused = |result: Result<i64, Error>| matches!(result, Err(Error::ForeignFuture { key }) if key == future.key());
        assert!(refused(other.submit(inc, &future).result()));
        let dependent = other.submit(inc, other.submit(inc, &future));
        assert!(refused(dependent.result()), "a dependent fails with the first cause");
        assert!(matches!(other.counts(&vec![future.clone()]), Err(Error::ForeignFuture { .. })));
        assert!(matches!(other.why(&future), Err(Error::ForeignFuture { .. })));
        let unsent = other.submit(inc, &future);
        assert_eq!(other.counts(&unsent).expect("asked").erred, 1);
        assert!(other.why(&unsent).expect("asked").is_empty());
        assert_eq!(other.submit(inc, 1).result().expect("nobody else is harmed"), 2);
    });
}

#[test]
fn tasks_submit_nothing_anywhere() {
    every_way(|client| {
        let said = client.submit(submits, ()).result().expect("runs");
        assert!(said.starts_with("submitting calls is not possible here: this is a task"), "{said}");
    });
    let said = quicsand::Client::local().sequential().submit(submits, ()).result().expect("does not wait for itself");
    assert!(said.starts_with("submitting calls"), "{said}");
}

#[test]
fn a_batched_map_of_large_arguments_holds_few_of_them() {
    every_way(|client| {
        let drawn = std::sync::atomic::AtomicU64::new(0);
        let large = (0..90_u8).map(|i| {
            drawn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            vec![i; 8 << 20]
        });
        let mut consumed = 0;
        for result in client.batched_map(length, large) {
            assert_eq!(result.expect("runs"), 8 << 20);
            consumed += 1;
            let ahead = drawn.load(std::sync::atomic::Ordering::Relaxed) - consumed;
            assert!(ahead <= 40, "{ahead} arguments of 8 MiB are under way");
        }
        assert_eq!(consumed, 90);
    });
}

#[test]
fn maps_whose_arguments_are_made_on_the_way() {
    every_way(|client| {
        let large = client.map(length, (0..6).map(|i| vec![7_u8; 100_000 + i]));
        assert!(client.gather(&large).expect("all run").into_iter().eq(100_000..100_006));
        let nested = client.map(inc, (0..10).map(|i| client.submit(inc, i)));
        assert!(client.gather(&nested).expect("all run").into_iter().eq(2..12));
        let lazily = client.batched_map(length, (0..40).map(|i| vec![1_u8; 70_000 + i]));
        assert!(lazily.map(|result| result.expect("runs")).eq(70_000..70_040));
    });
}

/// A minimal executor.
fn pollster<F: std::future::Future>(future: F) -> F::Output {
    struct Thread(std::thread::Thread);
    impl std::task::Wake for Thread {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Thread(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}
