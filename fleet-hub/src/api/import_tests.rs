//! Imports: once each, the newest label, all or nothing, named refusals, and taken back.

use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::Digest;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::datasets::{Dataset, DatasetSummary, FreezeRequest, Frozen, Split};
use fleetloop_protocol::api::imports::{Import, Imported, Missing, Pictures, RemoveImport, Taken};
use fleetloop_protocol::api::labels::LabelRequest;
use fleetloop_protocol::api::samples::{RemoveRequest, Sample, SampleCounts};
use fleetloop_protocol::sample::{MediaType, Selection};

use super::testing::{Hub, NOW, import, picture, sent};
use crate::store::removal;

async fn samples(hub: &Hub) -> Vec<Sample> {
    hub.get("/api/v1/samples?group=import").await.json()
}

async fn dataset(hub: &Hub) -> Dataset {
    let freeze = FreezeRequest { name: "d".into(), gate_share: 0.0, groups: vec![] };
    let frozen: DatasetSummary = hub.post("/api/v1/datasets", &freeze).await.json();
    hub.get(&format!("/api/v1/datasets/{}", frozen.digest)).await.json()
}

async fn remove(hub: &Hub, import: Option<u64>) -> Import {
    let path = format!("/api/v1/imports/{}/remove", import.unwrap());
    hub.post(&path, &RemoveImport { reason: "wrong folder".into() }).await.json()
}

fn label_of(dataset: &Dataset, payload: &[u8]) -> Vec<(String, Split)> {
    let payload = Digest::of(payload);
    let found = dataset.items.iter().filter(|item| item.payload == payload);
    found.map(|item| (dataset.labels[usize::from(item.label)].clone(), item.split)).collect()
}

#[tokio::test]
async fn corrected_labels_hold_and_each_picture_is_in_the_dataset_once() {
    let hub = Hub::new().await;
    let first = hub.import(Split::Train, 0, &["boot", "bag", "boot"]).await;
    assert_eq!((first.stored, first.known), (3, 0));
    hub.import(Split::Gate, 9, &["coat"]).await;
    // The same pictures from the corrected folder: the third was a coat.
    let pictures = [(picture(0), "boot"), (picture(1), "bag"), (picture(2), "coat")];
    let corrected = hub.imports(Split::Train, "corrected", &pictures).await;
    assert_eq!((corrected.stored, corrected.relabelled, corrected.known), (0, 1, 2));
    let dataset = dataset(&hub).await;
    assert_eq!(dataset.items.len(), 4, "{dataset:?}");
    assert_eq!(label_of(&dataset, &picture(2)), [("coat".to_owned(), Split::Train)]);
    let counts: SampleCounts = hub.get("/api/v1/sample-counts").await.json();
    assert_eq!(counts.imported, 4);
    let shown = samples(&hub).await;
    let third = shown.iter().find(|s| s.payload == Digest::of(&picture(2))).unwrap();
    assert_eq!(
        (third.label.as_deref(), third.source.as_deref()),
        (Some("coat"), Some("corrected"))
    );
}

#[tokio::test]
async fn the_same_import_again_changes_nothing_and_keeps_what_a_person_corrected() {
    let hub = Hub::new().await;
    let first = hub.import(Split::Train, 0, &["boot", "bag"]).await;
    let sample = samples(&hub).await[0].sample;
    hub.post("/api/v1/labels", &LabelRequest { sample, label: "coat".into() }).await;
    let again = hub.import(Split::Train, 0, &["boot", "bag"]).await;
    assert_eq!(again, Imported { import: first.import, known: 2, ..Imported::default() });
    let listed: Vec<Import> = hub.get("/api/v1/imports").await.json();
    assert_eq!((listed.len(), listed[0].pictures), (1, 2));
    assert_eq!((listed[0].source.as_str(), listed[0].by.as_str()), ("test pictures", "alice"));
    // One more picture: another import, and the person's word still holds.
    hub.import(Split::Train, 0, &["boot", "bag", "boot"]).await;
    let shown: Sample = hub.get(&format!("/api/v1/samples/{sample}")).await.json();
    assert_eq!(shown.label.as_deref(), Some("coat"));
    let all: Vec<Import> = hub.get("/api/v1/imports").await.json();
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn an_import_is_whole_or_not_at_all() {
    let hub = Hub::new().await;
    let pictures = [(picture(0), "boot"), (picture(1), "bag")];
    let items = vec![sent(&picture(0), MediaType::Png)];
    hub.post("/api/v1/imports/pictures", &Pictures { items }).await.json::<Taken>();
    let refused =
        hub.post("/api/v1/imports", &import(Split::Train, "s", &pictures)).await.error(409);
    assert!(refused.message.contains("1 payloads are not here"), "{refused}");
    assert!(samples(&hub).await.is_empty());
    let payloads = vec![Digest::of(&picture(0)), Digest::of(&picture(1))];
    let missing: Missing =
        hub.post("/api/v1/imports/missing", &Missing { payloads: payloads.clone() }).await.json();
    assert_eq!(missing.payloads, [payloads[1]], "what was sent is not sent again");
    let unknown = [(picture(0), "boot"), (picture(0), "sock")];
    hub.imports(Split::Train, "s", &pictures).await;
    let refused =
        hub.post("/api/v1/imports", &import(Split::Train, "s", &unknown[1..])).await.error(400);
    assert!(refused.message.contains("\"sock\""), "{refused}");
    let listed: Vec<Import> = hub.get("/api/v1/imports").await.json();
    assert_eq!(listed.len(), 1);
    let items = vec![sent(&picture(0), MediaType::Png); 513];
    let many = hub.post("/api/v1/imports/pictures", &Pictures { items }).await;
    assert_eq!(many.error(413).code, "too_large");
}

#[tokio::test]
async fn a_picture_under_two_labels_is_refused_and_the_rest_is_imported() {
    let hub = Hub::new().await;
    let pictures =
        [(picture(0), "boot"), (picture(1), "bag"), (picture(0), "coat"), (picture(1), "bag")];
    let done = hub.imports(Split::Train, "s", &pictures).await;
    assert_eq!((done.stored, done.refused.len()), (1, 1));
    assert_eq!(done.refused[0].picture, Digest::of(&picture(0)).to_string());
    assert!(done.refused[0].reason.contains("boot and as coat"), "{done:?}");
}

#[tokio::test]
async fn what_is_no_whole_picture_is_named_and_not_stored() {
    let hub = Hub::new().await;
    let whole = picture(3);
    let mut damaged = whole.clone();
    // A bit of the pixels: no header says it, only decoding does.
    let pixels = damaged.windows(4).position(|four| four == b"IDAT").unwrap() + 8;
    damaged[pixels] ^= 0x55;
    let cases: [(&[u8], MediaType, &str); 6] = [
        (b"<html>no</html>", MediaType::Png, "HTML"),
        (b"", MediaType::Png, "empty"),
        (&whole[..whole.len() - 1], MediaType::Png, "cut off"),
        (&damaged, MediaType::Png, "damaged"),
        (&picture(4), MediaType::Jpeg, "image/png"),
        (&vec![0; 8 * 1024 * 1024 + 1], MediaType::Png, "at most 8388608"),
    ];
    let items: Vec<_> = cases.iter().map(|(bytes, kind, _)| sent(bytes, *kind)).collect();
    let items = [items, vec![sent(&whole, MediaType::Png)]].concat();
    let taken: Taken = hub.post("/api/v1/imports/pictures", &Pictures { items }).await.json();
    assert_eq!(taken.refused.len(), 6, "{taken:?}");
    for ((bytes, _, words), one) in cases.iter().zip(&taken.refused) {
        assert_eq!(one.picture, Digest::of(bytes).to_string());
        assert!(one.reason.contains(words), "{one:?}");
        assert!(!hub.state.payloads.exists(Digest::of(bytes)).await.unwrap(), "{words}");
    }
    assert!(hub.state.payloads.exists(Digest::of(&whole)).await.unwrap(), "the rest goes on");
}

#[tokio::test]
async fn a_removed_import_takes_its_pictures_and_its_labels_along_and_may_come_again() {
    let hub = Hub::new().await;
    let first = hub.import(Split::Train, 0, &["boot", "bag"]).await;
    let pictures = [(picture(1), "coat"), (picture(2), "coat")];
    let second = hub.imports(Split::Gate, "second", &pictures).await;
    assert_eq!((second.stored, second.relabelled), (1, 1));
    let removed = remove(&hub, second.import).await;
    assert_eq!(removed.removed.as_ref().map(|r| r.reason.as_str()), Some("wrong folder"));
    assert_eq!(remove(&hub, second.import).await, removed, "again changes nothing");
    let found = samples(&hub).await;
    let of = |shade: u8| found.iter().find(|s| s.payload == Digest::of(&picture(shade))).unwrap();
    assert_eq!(of(1).label.as_deref(), Some("bag"), "what the first import said holds again");
    assert_eq!(of(1).source.as_deref(), Some("test pictures"));
    assert!(of(2).removed.is_some());
    assert!(!hub.state.payloads.exists(Digest::of(&picture(2))).await.unwrap(), "erased");
    hub.import(Split::Gate, 9, &["boot"]).await;
    assert_eq!(label_of(&dataset(&hub).await, &picture(1)), [("bag".to_owned(), Split::Train)]);
    let again = hub.imports(Split::Gate, "second", &pictures).await;
    assert_ne!(again.import, second.import);
    assert_eq!((again.stored, again.relabelled, again.removed), (1, 1, 0));
    assert_eq!(label_of(&dataset(&hub).await, &picture(2)), [("coat".to_owned(), Split::Gate)]);
    remove(&hub, first.import).await;
    hub.get("/api/v1/imports/99").await.error(404);
}

#[tokio::test]
async fn a_picture_for_the_gate_stays_with_it() {
    let hub = Hub::new().await;
    hub.import(Split::Gate, 1, &["boot"]).await;
    let done = hub.import(Split::Train, 0, &["boot", "bag"]).await;
    assert_eq!((done.stored, done.relabelled, done.kept_for_gate), (1, 1, 1));
    assert_eq!(label_of(&dataset(&hub).await, &picture(1)), [("bag".to_owned(), Split::Gate)]);
}

#[tokio::test]
async fn an_imported_picture_that_was_removed_by_itself_stays_removed() {
    let hub = Hub::new().await;
    hub.import(Split::Train, 1, &["boot"]).await;
    let all = samples(&hub).await;
    let request = RemoveRequest { samples: vec![all[0].sample], reason: "a person".into() };
    hub.post("/api/v1/samples/remove", &request).await.json::<Vec<Sample>>();
    let again = hub.import(Split::Train, 1, &["boot"]).await;
    assert_eq!((again.stored, again.removed, again.import), (0, 1, Some(1)));
    assert!(!hub.state.payloads.exists(Digest::of(&picture(1))).await.unwrap());
    let asked = Missing { payloads: vec![Digest::of(&picture(1))] };
    let missing: Missing = hub.post("/api/v1/imports/missing", &asked).await.json();
    assert!(missing.payloads.is_empty(), "it is not asked for");
}

#[tokio::test]
async fn pictures_of_an_import_that_did_not_come_are_erased_after_a_day() {
    let hub = Hub::new().await;
    hub.import(Split::Train, 1, &["boot"]).await;
    let items = vec![sent(&picture(2), MediaType::Png)];
    hub.post("/api/v1/imports/pictures", &Pictures { items }).await.json::<Taken>();
    let erase = async |hours: u64| {
        let now = UnixMillis(NOW.0 + hours * 3_600_000);
        removal::erase_due(&hub.state.store, &hub.state.payloads, now).await.unwrap();
        hub.state.payloads.exists(Digest::of(&picture(2))).await.unwrap()
    };
    assert!(erase(23).await);
    assert!(!erase(25).await);
    assert!(hub.state.payloads.exists(Digest::of(&picture(1))).await.unwrap());
}

#[tokio::test]
async fn a_freeze_decodes_what_devices_sent_and_names_what_it_leaves_out() {
    let hub = Hub::new().await;
    hub.import(Split::Gate, 9, &["boot"]).await;
    let mut device = hub.device("dev-a", "press 7").await;
    let chosen = Selection::Uncertain { score: 0.8 };
    let good = hub.sample(&mut device, &picture(1), chosen).await;
    let mut damaged = picture(2);
    let pixels = damaged.windows(4).position(|four| four == b"IDAT").unwrap() + 8;
    damaged[pixels] ^= 0x55;
    let bad = hub.sample(&mut device, &damaged, chosen).await;
    for sample in [good, bad] {
        hub.post("/api/v1/labels", &LabelRequest { sample, label: "boot".into() }).await;
    }
    let freeze = FreezeRequest { name: "d".into(), gate_share: 0.0, groups: vec![] };
    for _ in 0..2 {
        let frozen: Frozen = hub.post("/api/v1/datasets", &freeze).await.json();
        assert_eq!((frozen.dataset.train, frozen.dataset.gate), (1, 1));
        assert_eq!(frozen.unreadable.len(), 1);
        assert_eq!(frozen.unreadable[0].sample, bad);
        assert!(frozen.unreadable[0].reason.contains("damaged"), "{frozen:?}");
    }
}

#[tokio::test]
async fn samples_are_found_by_the_beginning_of_their_digest() {
    let hub = Hub::new().await;
    hub.import(Split::Train, 0, &["boot", "bag", "coat"]).await;
    let wanted = samples(&hub).await[1].clone();
    let path = format!("/api/v1/samples?starts={}", &wanted.sample.to_string()[..9]);
    assert_eq!(hub.get(&path).await.json::<Vec<Sample>>(), [wanted]);
    assert_eq!(hub.get("/api/v1/samples?starts=xyz").await.error(400).code, "invalid");
}

#[tokio::test]
async fn sixty_million_pixels_are_imported_and_ninety_are_named() {
    let hub = Hub::new().await;
    let wide = |width: u32| {
        let pixels = vec![9; width as usize * 3000];
        Frame::new(width, 3000, Channels::Grey, pixels).unwrap().encode_png().unwrap()
    };
    let (within, over) = (wide(20_000), wide(30_000));
    let items = [&within, &over].map(|bytes| sent(bytes, MediaType::Png)).to_vec();
    let taken: Taken = hub.post("/api/v1/imports/pictures", &Pictures { items }).await.json();
    assert_eq!(taken.refused.len(), 1);
    assert_eq!(taken.refused[0].picture, Digest::of(&over).to_string());
    assert!(taken.refused[0].reason.contains("30000×3000"), "{taken:?}");
    assert!(hub.state.payloads.exists(Digest::of(&within)).await.unwrap());
}
