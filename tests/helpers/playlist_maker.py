"""Generates playlists whose captions need every modality, in the file formats of real ones.

Tempo and mood follow from the audio features alone, the genre from the tags alone, and the kind of
artists from their fractions of tracks alone: most tracks by one artist, half by each of two, or by
many.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effcap.trainers.data.playlists import TagEmbeddings, artist_fractions, rank_artists

AUDIO, TAGS = 256, 300  # feature widths
TEMPOS, MOODS = ("slow", "steady", "fast"), ("quiet", "bright", "loud")
BEATS = {"slow": 65, "steady": 105, "fast": 165}  # per minute
GENRES = ("rock", "jazz", "techno", "reggae", "folk", "soul", "metal", "ambient")
OTHER_TAGS = (
    "1975",
    "1998",
    "2010",
    "Germany",
    "Brazil",
    "Japan",
    "Latin",
    "Vocal",
    "Instrumental",
)
FIRST = ("Blue", "Silver", "Velvet", "Northern", "Golden", "Paper", "Electric", "Silent")
SECOND = ("Foxes", "River", "Parade", "Garden", "Machines", "Harbour", "Sisters", "Owls")
ARTISTS = tuple(f"{first} {second}" for first in FIRST for second in SECOND)
WHO = ("one", "two", "many")
RATE = 16_000  # Hz
SECONDS = 30
FILES_PER_SOUND = 4  # audio files per tempo and mood


@dataclass(frozen=True)
class MadePlaylist:
    """A playlist and the facts that its captions mention.

    Attributes:
        id: name of the playlist.
        tempo, mood, genre: values of all its tracks.
        who: number of artists: "one", "two" or "many".
        tracks: a mapping of "id", "artist" and "tags" per track.
    """

    id: str
    tempo: str
    mood: str
    genre: str
    who: str
    tracks: list[dict]

    @property
    def artists(self) -> dict[str, int]:
        """Number of tracks per artist, most frequent first."""
        return rank_artists(track["artist"] for track in self.tracks)

    @property
    def title(self) -> str:
        """Title that names the artists."""
        first, second, *_ = [*self.artists, ""]
        return {
            "one": f"the best of {first}",
            "two": f"{first} and {second}",
            "many": "various artists",
        }[self.who]

    @property
    def captions(self) -> list[str]:
        """Two captions in PlayNTell's format."""
        sound = f"{self.tempo} and {self.mood}"
        return [
            f"<title> {self.title} <description> {sound} {self.genre}",
            f"<title> {self.title} <description> {self.genre} that is {sound}",
        ]


def make_playlists(count: int, seed: int = 0, name: str = "p") -> list[MadePlaylist]:
    """Returns `count` playlists of 6 to 12 tracks."""
    rng = np.random.default_rng(seed)
    return [_make(f"{name}{number}", rng) for number in range(count)]


def _make(name: str, rng: np.random.Generator) -> MadePlaylist:
    tempo, mood, genre, who = (str(rng.choice(names)) for names in (TEMPOS, MOODS, GENRES, WHO))
    length = 2 * int(rng.integers(3, 7))
    first, second, *others = rng.permutation(ARTISTS)[: length + 1].tolist()
    artists = {
        "one": [first] * (length - 1) + others[:1],
        "two": [first, second] * (length // 2),
        "many": [first, second, *others][:length],
    }[who]
    tracks = [
        {
            "id": f"{tempo}-{mood}-{rng.integers(FILES_PER_SOUND)}.wav",
            "artist": artists[number],
            "tags": [genre.title(), str(rng.choice(OTHER_TAGS))],
        }
        for number in rng.permutation(length)
    ]
    return MadePlaylist(name, tempo, mood, genre, who, tracks)


def made_tags() -> TagEmbeddings:
    """Returns seeded random embeddings of all tags that the playlists use."""
    words = [*GENRES, *(tag.lower() for tag in OTHER_TAGS)]
    vectors = np.random.default_rng(0).normal(size=(len(words), TAGS))
    return TagEmbeddings(words, 0.25 * vectors)


def sound(tempo: str, mood: str, rng: np.random.Generator) -> np.ndarray:
    """Returns (256,) audio features of a track: one direction per tempo and mood, and noise."""
    directions = np.random.default_rng(1).normal(size=(2, AUDIO))
    coordinates = [TEMPOS.index(tempo) - 1, MOODS.index(mood) - 1]  # -1, 0 or 1
    return 0.7 * (coordinates @ directions) + rng.normal(size=AUDIO)


def features(
    playlist: MadePlaylist, tags: TagEmbeddings, sounds: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Returns (N, C) features by modality.

    Args:
        playlist: the playlist.
        tags: embeddings of its tags.
        sounds: (256,) audio features by the name of a track's file. None takes `sound`.
    """
    rng = np.random.default_rng(int.from_bytes(playlist.id.encode(), "big"))
    audio = [
        sound(playlist.tempo, playlist.mood, rng) if sounds is None else sounds[track["id"]]
        for track in playlist.tracks
    ]
    tag_features, _, _ = tags.look_up(tag for track in playlist.tracks for tag in track["tags"])
    return {
        "audio": np.array(audio, np.float32),
        "tags": tag_features,
        "artist": artist_fractions(playlist.artists),
    }


def write_playlists(
    folder: Path,
    splits: Mapping[str, Sequence[MadePlaylist]],
    tags: TagEmbeddings | None = None,
    sounds: Mapping[str, np.ndarray] | None = None,
    hdf5: bool = False,
) -> Path:
    """Writes captions.json, artists.json, playlists.json, tags.npz and the features.

    Returns:
        Path of the features: the folder embeddings, or with `hdf5` the file embeddings.hdf5.
    """
    tags = made_tags() if tags is None else tags
    folder.mkdir(parents=True, exist_ok=True)
    playlists = [playlist for group in splits.values() for playlist in group]
    captions = {
        split: [
            {"playlist_id": playlist.id, "caption": caption}
            for playlist in group
            for caption in playlist.captions
        ]
        for split, group in splits.items()
    }
    artists = {
        playlist.id: [
            {"artist": artist, "count": count} for artist, count in playlist.artists.items()
        ]
        for playlist in playlists
    }
    listed = [{"id": playlist.id, "tracks": playlist.tracks} for playlist in playlists]
    for name, content in (("captions", captions), ("artists", artists), ("playlists", listed)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    tags.save(folder / "tags.npz")
    arrays = {playlist.id: features(playlist, tags, sounds) for playlist in playlists}
    if hdf5:
        return _write_hdf5(folder / "embeddings.hdf5", arrays)
    for name, modalities in arrays.items():
        for modality, array in modalities.items():
            path = folder / "embeddings" / modality / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array, allow_pickle=False)
    return folder / "embeddings"


def _write_hdf5(path: Path, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for name, modalities in arrays.items():
            for modality, array in modalities.items():
                file[f"{modality}/{name}"] = array
    return path


def write_audio(folder: Path) -> list[Path]:
    """Writes the audio files of the tracks and returns their paths.

    They play random notes at the track's tempo: soft and low (quiet), high (bright), or distorted
    with a drum (loud).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for tempo in TEMPOS:
        for mood in MOODS:
            for number in range(FILES_PER_SOUND):
                path = folder / f"{tempo}-{mood}-{number}.wav"
                with wave.open(str(path), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(RATE)
                    samples = (_samples(tempo, mood, rng) * 32767).astype("<i2")
                    file.writeframes(samples.tobytes())
                paths.append(path)
    return paths


def _samples(tempo: str, mood: str, rng: np.random.Generator) -> np.ndarray:
    """Returns (N,) samples from -1 to 1."""
    beat = 60 / (BEATS[tempo] * rng.uniform(0.9, 1.1))  # seconds
    time = np.arange(SECONDS * RATE) / RATE  # (N,)
    lowest = 880 if mood == "bright" else 110  # Hz
    notes = lowest * 2 ** (rng.choice([0, 3, 5, 7, 10, 12], size=1000) / 12)
    frequency = notes[(time / beat).astype(int)]  # (N,)
    fading = np.exp(-4 * (time % beat) / beat)  # (N,)
    tone = np.sin(2 * np.pi * np.cumsum(frequency) / RATE) * fading  # (N,)
    if mood != "loud":
        return {"quiet": 0.05, "bright": 0.4}[mood] * tone
    drum = rng.normal(size=len(time)) * np.exp(-40 * (time % beat))  # (N,)
    return 0.9 * np.tanh(6 * tone + 3 * drum)
