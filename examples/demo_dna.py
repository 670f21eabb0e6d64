"""Tell coding from non-coding DNA in a chloroplast: Titans beside the k-mer floor, no leaks.

Run by `make demo`. Prints tables and writes outputs/demo-dna.png.
"""

import time
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from titans_dna import TitansDNAClassifier, leak_report, load_dataset
from titans_dna.plots import plot_confusion, plot_reliability

PICTURE = Path("outputs/demo-dna.png")

console = Console(highlight=False)
started = time.perf_counter()
windows = load_dataset("chloroplast")
train, test = (windows[windows["split"] == part] for part in ("train", "test"))
console.print(
    f"\nArabidopsis chloroplast: {len(train)} windows of 120 bases to learn from, {len(test)} "
    "further along the genome to tell coding from non-coding in."
)
leaks = leak_report(train["sequence"].tolist(), test["sequence"].tolist())
console.print(f"Test windows that share a 30-mer with training: {len(leaks.overlapping)}")

classifier = TitansDNAClassifier().fit(train[["id", "sequence"]], train["label"])
console.print("\n[bold]On the test windows[/bold]")
report = classifier.score_report(test[["id", "sequence"]], test["label"])
console.print(str(report), soft_wrap=True)
shares = zip(classifier.model_.experts, classifier.model_.blend.weights, strict=True)
console.print("Weights of the blend: " + ", ".join(f"{name} {w:.2f}" for name, w in shares))

probabilities = classifier.predict_proba(test[["id", "sequence"]])
figure = Figure(figsize=(9, 4), layout="constrained")
reliability, confusion = figure.subplots(1, 2)
plot_reliability(test["label"], probabilities, classifier.classes_, ax=reliability)
plot_confusion(test["label"], classifier.predict(test[["id", "sequence"]]), ax=confusion)
PICTURE.parent.mkdir(exist_ok=True)
figure.savefig(PICTURE, dpi=120)
console.print(f"wrote {PICTURE} in {time.perf_counter() - started:.0f} s")
