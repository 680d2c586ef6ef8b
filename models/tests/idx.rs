//! IDX files: what is read, and what is refused before anything is allocated.

use std::io::Write as _;

use fleetloop_models::idx::{IdxError, IdxPictures, read_labels};
use tempfile::NamedTempFile;

fn file(parts: &[&[u8]]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    parts.iter().for_each(|part| file.write_all(part).unwrap());
    file
}

fn sizes(sizes: &[u32]) -> Vec<u8> {
    sizes.iter().flat_map(|size| size.to_be_bytes()).collect()
}

#[test]
fn pictures_and_labels_are_read_one_by_one() {
    let pixels: Vec<u8> = (0..24).collect();
    let pictures = file(&[&[0, 0, 8, 3], &sizes(&[2, 3, 4]), &pixels]);
    let pictures = IdxPictures::open(pictures.path()).unwrap();
    let second = pictures.read(1).unwrap();
    assert_eq!((pictures.len(), second.height(), second.width()), (2, 3, 4));
    assert_eq!(second.pixels(), &pixels[12..]);
    assert!(matches!(pictures.read(2), Err(IdxError::Index { index: 2, len: 2, .. })));
    let labels = file(&[&[0, 0, 8, 1], &sizes(&[3]), &[7, 8, 9]]);
    assert_eq!(read_labels(labels.path()).unwrap(), [7, 8, 9]);
}

#[test]
fn sizes_that_do_not_match_the_file_are_refused() {
    for (header, sizes) in [
        ([0, 0, 8, 3], sizes(&[u32::MAX, u32::MAX, u32::MAX])),
        ([0, 0, 8, 3], sizes(&[1, 3, 5])),
        ([0, 0, 8, 3], sizes(&[0, 0, 0])),
        ([0, 0, 13, 3], sizes(&[2, 3, 4])),
        ([31, 139, 8, 0], sizes(&[2, 3, 4])),
        ([0, 0, 8, 1], sizes(&[24])),
    ] {
        let file = file(&[&header, &sizes, &[0; 24]]);
        let error = IdxPictures::open(file.path()).unwrap_err();
        assert!(matches!(error, IdxError::Format { .. }), "{error}");
    }
    assert!(IdxPictures::open(file(&[b"x"]).path()).is_err());
    assert!(read_labels(file(&[&[0, 0, 8, 1], &sizes(&[9]), &[1]]).path()).is_err());
}
