//! What a backup's file is read as, whole and damaged.

use std::io::{Cursor, Write as _};

use super::{
    archive::{About, Archive, Fault, Writer, read},
    fuzz::about,
};

const FILES: [(u32, &str, &[u8]); 3] =
    [(0, "MANIFEST", b"manifest"), (0, "a-1.log", &[7; 1500]), (1, "MANIFEST", b"")];

fn written(about: &About) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), about).unwrap();
    for (shard, name, content) in FILES {
        writer.file(shard, name, content.len() as u64).unwrap();
        for piece in content.chunks(1000) {
            writer.data(piece).unwrap();
        }
    }
    let (out, files, bytes) = writer.finish().unwrap();
    assert_eq!((files, bytes > 1508), (4, true));
    out
}

type Files = Vec<(u32, String, Vec<u8>)>;

fn read_all(bytes: &[u8]) -> Result<(Archive, Files), Fault> {
    let mut files = Vec::new();
    let archive = read(Cursor::new(bytes), |shard, name, content| {
        let mut whole = Vec::new();
        content.read_to_end(&mut whole)?;
        files.push((shard, name.to_owned(), whole));
        Ok(())
    })?;
    Ok((archive, files))
}

fn damage(bytes: &[u8]) -> String {
    match read_all(bytes) {
        Err(Fault::Damaged(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_reads_back_plain_and_compressed() {
    let plain = written(&about());
    let (archive, files) = read_all(&plain).unwrap();
    assert_eq!(archive.about, about());
    assert_eq!(archive.sums.len(), 4);
    let expected: Files = FILES.iter().map(|(s, n, c)| (*s, (*n).to_owned(), c.to_vec())).collect();
    assert_eq!(files, expected);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 0).unwrap();
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < plain.len());
    assert_eq!(read_all(&packed).unwrap(), (archive, files));
    for len in 0..packed.len() {
        damage(&packed[..len]);
    }
}

#[test]
fn no_flip_and_no_cut_goes_unseen() {
    let whole = written(&about());
    let read = read_all(&whole).unwrap();
    // Behind the checksums nothing is read.
    let end = whole.len() - 1024;
    for position in 0..end {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        match read_all(&flipped) {
            Err(Fault::Damaged(_) | Fault::Format(_)) => {}
            // Padding, and fields of the tar that say nothing about a file's content.
            Ok(same) => assert_eq!(same, read, "byte {position}"),
            Err(Fault::Io(error)) => panic!("byte {position}: {error}"),
        }
    }
    // The last file's padding says nothing.
    for len in (0..end - 512).step_by(7) {
        damage(&whole[..len]);
    }
}

#[test]
fn what_is_no_file_of_a_backup_is_refused() {
    let entry = |name: &str, kind: tar::EntryType, link: Option<&str>| {
        let mut tar = tar::Builder::new(Vec::new());
        let about = serde_json::to_vec(&about()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(about.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, "backup.json", &about[..]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_entry_type(kind);
        let bytes = name.as_bytes();
        header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        tar.append(&header, &[][..]).unwrap();
        tar.into_inner().unwrap()
    };
    for name in [
        "../x",
        "/etc/passwd",
        "shard-0000000000/../x",
        "shard-0000000000/.x",
        "shard-0/MANIFEST",
        "shard-0000000000/a/b",
        "shard-0000000000/",
        "IDENTITY",
        "shard-9999999999/MANIFEST",
    ] {
        let what = damage(&entry(name, tar::EntryType::Regular, None));
        assert!(what.contains("belongs to no backup"), "{name}: {what}");
    }
    let link = entry("shard-0000000000/MANIFEST", tar::EntryType::Symlink, Some("/etc/passwd"));
    assert!(damage(&link).contains("is no file"));
    assert!(damage(b"").contains("cut short"));
    assert!(damage(&[7; 4096]).len() > 3);
    let twice = {
        let mut writer = Writer::begin(Vec::new(), &about()).unwrap();
        writer.file(0, "MANIFEST", 0).unwrap();
        writer.file(0, "MANIFEST", 0).unwrap();
        writer.finish().unwrap().0
    };
    assert!(damage(&twice).contains("twice"));
}

#[test]
fn a_later_format_says_so() {
    let later = written(&About { format: 2, ..about() });
    assert!(matches!(read_all(&later), Err(Fault::Format(2))));
}

#[test]
fn what_extends_a_header_is_no_file_and_is_not_read() {
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader]
    {
        let mut header = tar::Header::new_gnu();
        header.set_path("shard-0000000000/MANIFEST").unwrap();
        header.set_entry_type(kind);
        // A terabyte, if it were believed.
        header.set_size(1 << 40);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 4096]);
        let what = damage(&bytes);
        assert!(what.contains("is no file"), "{kind:?}: {what}");
    }
}
