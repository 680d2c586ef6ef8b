//! Pure parts: buckets and places.

use proptest::prelude::*;

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

#[test]
fn a_burst_passes_at_once_and_what_follows_at_the_rate() {
    let mut bucket = Bucket::new(100, ms(1000), 5, ms(0));
    for _ in 0..5 {
        assert_eq!(bucket.owe(1, ms(0)), Duration::ZERO);
    }
    assert_eq!(bucket.owe(1, ms(0)), ms(10));
    assert_eq!(bucket.owe(1, ms(10)), ms(10));
    assert!(!bucket.has(1, ms(20)) && bucket.has(1, ms(30)));
    assert!(!bucket.is_full(ms(60)) && bucket.is_full(ms(70)));
}

#[test]
fn a_message_larger_than_the_burst_passes_and_is_paid_for() {
    let mut bucket = Bucket::new(1000, ms(1000), 500, ms(0));
    assert!(bucket.has(2000, ms(0)), "a full bucket is the most there is");
    assert_eq!(bucket.owe(2000, ms(0)), ms(1500));
    assert!(!bucket.has(2000, ms(1999)) && bucket.has(2000, ms(2000)));
}

#[test]
fn a_clock_that_stands_or_goes_back_gives_nothing() {
    let mut bucket = Bucket::new(1, ms(1000), 1, ms(5000));
    assert_eq!(bucket.owe(1, ms(5000)), Duration::ZERO);
    assert!(!bucket.has(1, ms(0)));
    assert!(bucket.has(1, ms(6000)));
}

proptest! {
    #[test]
    fn over_any_span_no_more_passes_than_burst_and_rate(
        burst in 1u64..50, rate in 1u64..1000, gaps in prop::collection::vec(0u64..100, 1..200),
    ) {
        let mut bucket = Bucket::new(rate, ms(1000), burst, ms(0));
        let (mut now, mut passed) = (0, 0u64);
        for gap in gaps {
            now += gap;
            if bucket.has(1, ms(now)) {
                bucket.owe(1, ms(now));
                passed += 1;
            }
            prop_assert!(passed <= burst + rate * now / 1000);
        }
    }

    #[test]
    fn waiting_as_told_keeps_to_the_rate(
        burst in 1u64..50, rate in 1u64..1000, sizes in prop::collection::vec(1u64..100, 1..100),
    ) {
        let mut bucket = Bucket::new(rate, ms(1000), burst, ms(0));
        let (mut now, mut passed) = (Duration::ZERO, 0u64);
        for size in sizes {
            now += bucket.owe(size, now);
            passed += size;
        }
        let most = burst as f64 + rate as f64 * now.as_secs_f64() + 1e-6;
        prop_assert!(passed as f64 <= most, "{passed} in {now:?}");
    }
}

#[test]
fn a_flood_takes_a_third_and_everybody_else_finds_a_place() {
    let places = Places::new(1024);
    let (flood, second, good) = (device("flood"), device("second"), device("good"));
    let taken = (0..5000).filter(|_| places.enter(&flood)).count();
    assert!((340..=343).contains(&taken), "{taken}");
    let taken = (0..5000).filter(|_| places.enter(&second)).count();
    assert!(taken > 200, "{taken}");
    for _ in 0..64 {
        assert!(places.enter(&good));
    }
    places.leave(&good);
    places.leave(&device("nobody"));
    assert!(places.in_use() < 1024);
    places.clear();
    assert_eq!(places.in_use(), 0);
    places.leave(&good);
    assert_eq!(places.in_use(), 0);
}

#[test]
fn one_place_serves_one_device_after_another() {
    let places = Places::new(1);
    assert!(places.enter(&device("a")) && !places.enter(&device("b")));
    places.leave(&device("a"));
    assert!(places.enter(&device("b")));
}

#[tokio::test]
async fn whoever_waits_gets_the_place_that_comes_free_and_nobody_after_the_close() {
    let places = Arc::new(Places::new(1));
    let held = places.hold(&device("a")).unwrap();
    assert!(!places.wait(&device("b"), ms(20)).await);
    let waiting = Arc::clone(&places);
    let waiting = tokio::spawn(async move { waiting.wait(&device("b"), ms(60_000)).await });
    tokio::task::yield_now().await;
    drop(held);
    assert!(waiting.await.unwrap());
    let closing = Arc::clone(&places);
    let closing = tokio::spawn(async move { closing.close().await });
    tokio::task::yield_now().await;
    places.leave(&device("b"));
    closing.await.unwrap();
    assert!(!places.enter(&device("b")));
}

#[test]
fn what_cannot_be_slowed_passes_within_both_quotas_and_costs_nobody_else() {
    let limits = Limits {
        device_messages_burst: 3,
        device_bytes_burst: 200_000,
        device_messages_per_s: 1,
        device_bytes_per_s: 131_072,
        ..Limits::default()
    };
    let quotas = Quotas::new(&limits);
    let (small, large, other) = (device("small"), device("large"), device("other"));
    assert_eq!((0..50).filter(|_| quotas.admits(&small, 10)).count(), 3);
    assert_eq!((0..50).filter(|_| quotas.admits(&large, 150_000)).count(), 1);
    assert!(quotas.admits(&other, 10));
}

#[test]
fn log_lines_of_one_device_are_bounded_and_the_others_counted() {
    let quotas = Quotas::new(&Limits::default());
    let (noisy, quiet) = (device("noisy"), device("quiet"));
    let lines = (0..1000).filter(|_| quotas.may_log(&noisy)).count();
    assert!((20..=21).contains(&lines), "{lines}");
    assert!(quotas.may_log(&quiet));
    assert_eq!(quotas.drops().total()["log_line"], 1000 - lines as u64);
    let fresh = quotas.drops().fresh();
    assert_eq!(fresh.len(), 1);
    assert_eq!(fresh[&Some(noisy)].dropped[&Why::LogLine], 1000 - lines as u64);
    assert!(quotas.drops().fresh().is_empty());
}

#[test]
fn many_devices_cost_only_what_is_under_way() {
    let quotas = Quotas::new(&Limits::default());
    for n in 0..3 * BUCKETS {
        assert_eq!(quotas.pace(&device(&format!("d{n}")), 0), Duration::ZERO);
        std::thread::yield_now();
    }
    // Each took one of four thousand, which is in again after a millisecond.
    std::thread::sleep(ms(5));
    quotas.pace(&device("last"), 0);
    assert!(quotas.0.devices.lock().unwrap().len() <= BUCKETS + 1);
}
