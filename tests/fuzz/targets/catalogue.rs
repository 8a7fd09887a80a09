//! Metadata records, the catalogue they make, and its form in a checkpoint.

use prkdb::storage::{
    fuzz::{catalog, load_catalog, save_catalog},
    kv::catalog::Catalog,
};
use prkdb_types::{
    CollectionName, CollectionSettings, ShardCommand,
    command::{
        CollectionPut, PartitionDrop, PartitionPlace, PartitionPut, SettingsRecord, ShardChange,
    },
};

use super::source::{Source, text};

/// Records behind their lengths; or, behind a 255, a section of a checkpoint.
pub fn run(data: &[u8]) {
    if let Some((255, section)) = data.split_first() {
        if let Some(read) = load_catalog(section) {
            let _next = (read.next_collection(), read.next_partition());
            comes_back(&read);
        }
        return;
    }
    let mut source = Source::new(data);
    let mut records = Vec::new();
    while !source.is_empty() {
        records.push(source.piece());
    }
    for record in &records {
        if let Ok(name) = CollectionName::parse(text(record)) {
            assert_eq!(name.as_str(), text(record));
        }
        if let Ok(command) = ShardCommand::parse_record(record) {
            let again = ShardCommand::parse_record(&command.to_record());
            assert_eq!(again.ok(), Some(command), "a command is read as it was written");
        }
    }
    let made = catalog(records.iter().copied());
    let _next = (made.next_collection(), made.next_partition());
    assert_eq!(catalog(records.iter().chain(&records).copied()), made, "a repeat changes nothing");
    for row in made.live() {
        assert_eq!(made.by_name(&row.name), Some(row));
    }
    comes_back(&made);
}

/// What is written is read, and written the same. Which of two rows a name leads to, where records gave
/// both the same, depends on their order and is not compared.
fn comes_back(catalog: &Catalog) {
    let written = save_catalog(catalog);
    let again = load_catalog(&written).expect("what is written is read");
    assert_eq!(save_catalog(&again), written, "a catalogue is written as it was read");
}

fn collection(version: u64, dropped: bool) -> ShardCommand {
    let put = CollectionPut {
        collection: 7,
        name: "flights".to_owned(),
        settings: Some(SettingsRecord::from(&CollectionSettings::default())),
        created_ms: 1_385_000_000_000,
        partitions: vec![PartitionPlace { partition: 10, number: 0, shard: 1 }],
        dropped,
    };
    ShardCommand { id: 7, version, change: Some(ShardChange::CollectionPut(put)) }
}

/// A collection that comes and goes, with its partition.
pub fn seeds() -> Vec<Vec<u8>> {
    let put = PartitionPut {
        partition: 10,
        collection: 7,
        number: 0,
        key_index: true,
        ..PartitionPut::default()
    };
    let drop = PartitionDrop { partition: 10 };
    let commands = [
        collection(1, false),
        ShardCommand { id: 10, version: 1, change: Some(ShardChange::PartitionPut(put)) },
        ShardCommand { id: 10, version: 2, change: Some(ShardChange::PartitionDrop(drop)) },
        collection(2, true),
    ];
    let records: Vec<_> = commands.iter().map(ShardCommand::to_record).collect();
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for record in &records {
        all.push(u8::try_from(record.len()).unwrap_or(u8::MAX));
        all.extend_from_slice(record);
        seeds.push(all.clone());
    }
    let two = catalog(records.iter().take(2).map(AsRef::as_ref));
    seeds.push([&[255][..], &save_catalog(&two)].concat());
    seeds
}
