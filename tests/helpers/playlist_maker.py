"""Playlists made up, in the files that real ones come in, whose captions need every modality.

How fast and how loud the music is can only be heard (audio), the genre only be read off the tags,
and whose music it is only be told by the artists' shares: most tracks of one artist, half of each
of two, or of many.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effcap.trainers.data.playlists import TagEmbeddings, artist_shares, rank_artists

AUDIO, TAGS = 256, 300  # widths
TEMPOS, MOODS = ("slow", "steady", "fast"), ("quiet", "bright", "loud")
BEATS = {"slow": 65, "steady": 105, "fast": 165}  # a minute
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
RATE = 16_000  # samples a second
SECONDS = 30
PER_SOUND = 4  # audio files of each tempo and mood


@dataclass(frozen=True)
class MadePlaylist:
    """A playlist, and what its captions say.

    Attributes:
        id: its name.
        tempo, mood, genre: of all its tracks.
        who: "one" artist, "two" or "many".
        tracks: `{"id", "artist", "tags"}` of each.
    """

    id: str
    tempo: str
    mood: str
    genre: str
    who: str
    tracks: list[dict]

    @property
    def artists(self) -> dict[str, int]:
        """Number of tracks by artist."""
        return rank_artists(track["artist"] for track in self.tracks)

    @property
    def title(self) -> str:
        """Who plays."""
        first, second, *_ = [*self.artists, ""]
        return {
            "one": f"the best of {first}",
            "two": f"{first} and {second}",
            "many": "various artists",
        }[self.who]

    @property
    def captions(self) -> list[str]:
        """Two, in PlayNTell's form."""
        how = f"{self.tempo} and {self.mood}"
        return [
            f"<title> {self.title} <description> {how} {self.genre}",
            f"<title> {self.title} <description> {self.genre} that is {how}",
        ]


def make_playlists(count: int, seed: int = 0, name: str = "p") -> list[MadePlaylist]:
    """So many playlists of 6 to 12 tracks."""
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
            "id": f"{tempo}-{mood}-{rng.integers(PER_SOUND)}.wav",
            "artist": artists[number],
            "tags": [genre.title(), str(rng.choice(OTHER_TAGS))],
        }
        for number in rng.permutation(length)
    ]
    return MadePlaylist(name, tempo, mood, genre, who, tracks)


def made_tags() -> TagEmbeddings:
    """Embeddings of the tags that playlists are made with, at random but always the same."""
    words = [*GENRES, *(tag.lower() for tag in OTHER_TAGS)]
    vectors = np.random.default_rng(0).normal(size=(len(words), TAGS))
    return TagEmbeddings(words, 0.25 * vectors)


def sound(tempo: str, mood: str, rng: np.random.Generator) -> np.ndarray:
    """(256,) features of a track: a direction for its tempo, one for its mood, and noise."""
    directions = np.random.default_rng(1).normal(size=(2, AUDIO))
    places = [TEMPOS.index(tempo) - 1, MOODS.index(mood) - 1]  # -1, 0 or 1
    return 0.7 * (places @ directions) + rng.normal(size=AUDIO)


def features(
    playlist: MadePlaylist, tags: TagEmbeddings, sounds: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Features (n, C) by modality; audio by the name of a track's file, or else made up."""
    rng = np.random.default_rng(int.from_bytes(playlist.id.encode(), "big"))
    audio = [
        sound(playlist.tempo, playlist.mood, rng) if sounds is None else sounds[track["id"]]
        for track in playlist.tracks
    ]
    found, _, _ = tags.look_up(tag for track in playlist.tracks for tag in track["tags"])
    return {
        "audio": np.array(audio, np.float32),
        "tags": found,
        "artist": artist_shares(playlist.artists),
    }


def write_playlists(
    folder: Path,
    splits: Mapping[str, Sequence[MadePlaylist]],
    tags: TagEmbeddings | None = None,
    sounds: Mapping[str, np.ndarray] | None = None,
    hdf5: bool = False,
) -> Path:
    """Writes captions.json, artists.json, playlists.json, tags.npz, and features in the folder
    `embeddings` or the file `embeddings.hdf5`, whose path it returns."""
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
    for name, of_playlist in arrays.items():
        for modality, array in of_playlist.items():
            place = folder / "embeddings" / modality
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{name}.npy", array, allow_pickle=False)
    return folder / "embeddings"


def _write_hdf5(path: Path, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for name, of_playlist in arrays.items():
            for modality, array in of_playlist.items():
                file[f"{modality}/{name}"] = array
    return path


def write_audio(folder: Path) -> list[Path]:
    """Writes audio files that sound as the tracks of made playlists are said to: notes in a rhythm,
    soft and low, clear and high, or distorted with a drum."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for tempo in TEMPOS:
        for mood in MOODS:
            for number in range(PER_SOUND):
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
    """(N,) from -1 to 1."""
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
