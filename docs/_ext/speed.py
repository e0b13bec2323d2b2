"""Markdown tables of the speed measurements."""

from tables import as_markdown, read_digits


def speed_preparing() -> str:
    """How fast audio is prepared."""
    table = read_digits("speed/preparing")
    return as_markdown(["step", "clips of 29 s per second"], table.to_numpy().tolist())


def speed_steps() -> str:
    """Training and inference of every extractor at the paper's width."""
    table = read_digits("speed/steps").drop(columns=["training_peak_mib", "inference_peak_mib"])
    rows = [[f"`{name}`", *numbers] for name, *numbers in table.to_numpy().tolist()]
    header = ["extractor", "training step, s", "training, clips/s", "training, share of product"]
    header += ["inference, s", "inference, clips/s", "inference, share of product"]
    return as_markdown(header, rows)


def speed_cost() -> str:
    """Operations of one run on MagnaTagATune, and days on two CPU cores."""
    rows = []
    for row in read_digits("speed/cost").itertuples():
        operations = [row.paper_je, row.paper_no_je, row.fast_je, row.fast_no_je]
        rows.append([f"`{row.extractor}`", *operations, row.days_paper_je, row.days_fast_je])
    header = ["extractor", "`paper` je", "`paper` no_je", "`fast` je", "`fast` no_je"]
    return as_markdown([*header, "days, `paper` je", "days, `fast` je"], rows)


def speed_tagging() -> str:
    """Seconds of audio tagged per second, and how that compares with musicnn."""
    table = read_digits("speed/tagging")
    names = {"sample_cnn": "`sample_cnn`, width 128", "harmonic_cnn": "`harmonic_cnn`, width 128"}
    names |= {"demo": "`short_chunk_cnn`, width 16", "musicnn": "musicnn"}
    peers = table[table.model == "musicnn"].set_index("cores")
    rows = []
    for row in table.itertuples():
        shown = []
        for column in ("clips_29_s", "song_4_min", "song_10_min"):
            value, peer = getattr(row, column), peers.loc[row.cores, column]
            times = "" if row.model == "musicnn" else f" ({float(value) / float(peer):.1f} ×)"
            shown.append(value + times)
        rows.append([names[row.model], row.cores, *shown])
    return as_markdown(["model", "cores", "clips of 29 s", "song of 4 min", "song of 10 min"], rows)


def speed_searching() -> str:
    """Milliseconds of a search among a million files."""
    return as_markdown(["step", "ms"], read_digits("speed/searching").to_numpy().tolist())


def speed_exploring() -> str:
    """How fast the explorer draws and ranks."""
    table = read_digits("speed/exploring")
    return as_markdown(list(table.columns), table.to_numpy().tolist())


def speed_beside(other: str) -> str:
    """One step of the authors' TensorFlow code ("original") or of an earlier version ("before"),
    and of this package: seconds, and where measured the share of a large product's rate."""
    table = read_digits(f"speed/{other}").rename(columns={"mode": "step"})
    header = table.columns.str.replace("_share", ", share of product").str.replace("_s", ", s")
    rows = [[f"`{name}`", *values] for name, *values in table.to_numpy().tolist()]
    return as_markdown(header.tolist(), rows)
