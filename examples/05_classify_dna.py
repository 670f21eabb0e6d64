"""Fit on FASTA and a table of labels, hold the answers against the k-mer floor, save, load."""

from pathlib import Path

from titans_dna import TitansDNAClassifier, TrainingConfig, iter_fasta, load_dataset

# The bundled chloroplast windows, as files that you might have.
windows = load_dataset("chloroplast")
for part in ("train", "test"):
    rows = windows[windows["split"] == part]
    records = (f">{name}\n{sequence}\n" for name, sequence in rows[["id", "sequence"]].to_numpy())
    Path(f"{part}.fa").write_text("".join(records))
windows[["id", "label"]].to_csv("labels.csv", index=False)
print(next(iter_fasta("train.fa")).name, "is the first of", sum(windows["split"] == "train"))

quick = TrainingConfig(max_steps=40, validate_every=10)  # leave it out for the default
classifier = TitansDNAClassifier(n_networks=1, training=quick, progress=False)
classifier.fit("train.fa", "labels.csv")
print(classifier.score_report("test.fa", "labels.csv"))

classifier.save("coding.titans")
again = TitansDNAClassifier.load("coding.titans")
for answers in again.iter_predict("test.fa", batch_bases=4096):  # piece by piece: any file size
    print(answers.head(3).round(3))
    break
