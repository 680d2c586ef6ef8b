//! Models that end the agent again and again. An end is the updater's task, dropped where it is.

use super::*;

impl Running {
    /// The agent ends without meaning to.
    async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

impl Host {
    fn deadly(bundle: BundleDigest) -> Self {
        let host = Self::new();
        host.deadly.lock().unwrap().push(bundle);
        host
    }

    async fn answers(&self, bundle: BundleDigest) {
        let mut running = self.running.subscribe();
        let wait = running.wait_for(|now| *now == Some(bundle));
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in time").unwrap();
    }

    async fn is_asked_for_a_swap(&self) {
        let asked = async {
            while self.swaps.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asked).await.expect("in time");
    }
}

/// A device with both bundles installed, the second one current and ordered.
async fn both_installed(rig: &mut Rig, one: &Files, two: &Files) {
    rig.release(&[(ONE, one), (TWO, two)]).await;
    let running = rig.start(&Host::new());
    running.order(1, ONE, one.digest()).await;
    running.installed(1).await;
    running.order(2, TWO, two.digest()).await;
    running.installed(2).await;
    running.stop().await;
}

async fn crash_three_times(rig: &Rig, bundle: BundleDigest) {
    for _ in 0..3 {
        let host = Host::new();
        let running = rig.start(&host);
        host.answers(bundle).await;
        running.crash().await;
    }
}

#[tokio::test]
async fn a_model_that_ends_the_agent_gives_way_to_the_one_before_and_is_reported_until_ordered_anew()
 {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    both_installed(&mut rig, &one, &two).await;
    crash_three_times(&rig, two.digest()).await;

    for start in 0..2 {
        let host = Host::new();
        let running = rig.start(&host);
        host.answers(one.digest()).await;
        let reason = running.failed(2).await;
        assert!(reason.contains("3 times in a row"), "{reason}");
        running.order(2, TWO, two.digest()).await;
        assert_eq!(host.swaps.load(Ordering::SeqCst), 1, "start {start}: only the one before");
        running.stop().await;
    }
    let back = Installed { current: Some(one.digest()), previous: None };
    assert_eq!(rig.bundles().installed().unwrap(), back);

    let host = Host::new();
    let running = rig.start(&host);
    running.order(3, TWO, two.digest()).await;
    running.installed(3).await;
    assert_eq!(*host.running.borrow(), Some(two.digest()), "a new order is a new try");
    running.stop().await;
}

#[tokio::test]
async fn a_model_that_ends_the_agent_before_it_answers_is_given_up_and_the_old_one_answers() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    let running = rig.start(&Host::new());
    running.order(1, ONE, one.digest()).await;
    running.installed(1).await;
    running.stop().await;
    for attempt in 0..3 {
        let host = Host::deadly(two.digest());
        let running = rig.start(&host);
        host.answers(one.digest()).await;
        if attempt == 0 {
            running.order(2, TWO, two.digest()).await;
        }
        while host.swaps.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.crash().await;
    }
    let host = Host::deadly(two.digest());
    let running = rig.start(&host);
    running.failed(2).await;
    assert_eq!(*host.running.borrow(), Some(one.digest()));
    assert_eq!(host.swaps.load(Ordering::SeqCst), 1);
    running.stop().await;
    assert_eq!(rig.bundles().installed().unwrap().current, Some(one.digest()));
}

#[tokio::test]
async fn orderly_ends_however_often_change_nothing() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    both_installed(&mut rig, &one, &two).await;
    for _ in 0..5 {
        let host = Host::new();
        let running = rig.start(&host);
        host.answers(two.digest()).await;
        running.stop().await;
    }
    assert_eq!(rig.bundles().installed().unwrap().current, Some(two.digest()));
}

#[tokio::test]
async fn a_power_cut_at_any_step_of_the_way_back_ends_with_the_one_before_and_a_report() {
    for steps in 0..=2 {
        let mut rig = Rig::new().await;
        let (one, two) = (Files::fixture(1), Files::fixture(2));
        both_installed(&mut rig, &one, &two).await;
        crash_three_times(&rig, two.digest()).await;
        if steps >= 1 {
            // The ends are on the disk with the trial of the one before, which never answered.
            let host = Host::deadly(one.digest());
            let running = rig.start(&host);
            host.is_asked_for_a_swap().await;
            running.crash().await;
        }
        if steps >= 2 {
            // And it was written down that the one before answers, but not that the order is off.
            rig.bundles().went_back_to(one.digest()).unwrap();
        }
        let host = Host::new();
        let running = rig.start(&host);
        running.failed(2).await;
        assert_eq!(*host.running.borrow(), Some(one.digest()), "step {steps}");
        assert_eq!(host.swaps.load(Ordering::SeqCst), 1, "step {steps}");
        running.stop().await;
        assert_eq!(rig.bundles().installed().unwrap().current, Some(one.digest()), "step {steps}");
    }
}

#[tokio::test]
async fn the_only_model_rests_when_it_ends_the_agent_and_another_order_is_carried_out() {
    let mut rig = Rig::new().await;
    let (one, two) = (Files::fixture(1), Files::fixture(2));
    rig.release(&[(ONE, &one), (TWO, &two)]).await;
    let running = rig.start(&Host::new());
    running.order(1, ONE, one.digest()).await;
    running.installed(1).await;
    running.stop().await;
    crash_three_times(&rig, one.digest()).await;
    let host = Host::new();
    let running = rig.start(&host);
    running.failed(1).await;
    assert_eq!(host.swaps.load(Ordering::SeqCst), 0);
    running.order(2, TWO, two.digest()).await;
    running.installed(2).await;
    assert_eq!(*host.running.borrow(), Some(two.digest()));
    running.stop().await;
}
