#!/usr/bin/env python3
"""Draws docs/picture/run.svg: a real run of `cargo demo` in a real terminal (tmux), its last screen as SVG.

Needs tmux and python3. The phrase is typed into the prompt as a person would.
"""

import html
import pathlib
import re
import subprocess
import sys
import time

COLUMNS, ROWS = 104, 60
SESSION = "runbook-picture"
HERE = pathlib.Path(__file__).resolve().parent
COLOURS = {30: "#3b4252", 31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 34: "#61afef", 35: "#c678dd", 36: "#56b6c2", 37: "#dcdfe4", 90: "#7f8694"}
PLAIN, BACKGROUND = "#dcdfe4", "#1e2127"
CELL, LINE, MARGIN = 8.43, 19, 18


def tmux(*arguments):
    return subprocess.run(["tmux", "-L", SESSION, *arguments], check=True, capture_output=True, text=True).stdout


def screen(*flags):
    return tmux("capture-pane", "-p", "-t", SESSION, *flags)


def wait_for(pattern, seconds):
    end = time.time() + seconds
    while time.time() < end:
        if re.search(pattern, screen("-S", "-200")):
            return
        time.sleep(0.2)
    sys.exit(f"{pattern!r} did not appear:\n{screen('-S', '-200')}")


def run():
    subprocess.run(["tmux", "-L", SESSION, "kill-server"], capture_output=True)
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(HERE.parent.parent))
    tmux("send-keys", "-t", SESSION, "PS1='$ '; clear; cargo demo; echo \"exit $?\"", "Enter")
    wait_for(r"confirm ›", 600)
    time.sleep(1)
    tmux("send-keys", "-t", SESSION, "RESET CHATKIT", "Enter")
    wait_for(r"(?m)^exit \d+", 120)
    text = screen("-e", "-S", "-200")
    tmux("kill-server")
    return text


def spans(line):
    """The pieces of a line with their colour, weight and dimness."""
    colour, bold, dim = PLAIN, False, False
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        match = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if not match:
            if piece:
                yield piece, colour, bold, dim
            continue
        for code in [int(code or 0) for code in match[1].split(";")]:
            if code == 0:
                colour, bold, dim = PLAIN, False, False
            elif code == 1:
                bold = True
            elif code == 2:
                dim = True
            elif code == 22:
                bold, dim = False, False
            elif code == 39:
                colour = PLAIN
            elif code in COLOURS:
                colour = COLOURS[code]


def draw(text):
    lines = [line.rstrip() for line in text.splitlines()]
    start = next(at for at, line in enumerate(lines) if "$ runbook exec" in line or "cargo demo" in line)
    lines = lines[start:]
    # Folders of this machine are of no interest to a reader.
    lines = [re.sub(r"/(?:tmp|work|root|home)/\S*?/(?=[^/\s]+(?:\s|$))", "…/", line) for line in lines]
    while lines and not re.sub(r"\x1b\[[0-9;]*m", "", lines[-1]).strip():
        lines.pop()
    width, height = round(COLUMNS * CELL + 2 * MARGIN), len(lines) * LINE + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="A run of the ChatKit reset in a terminal">',
        f'<rect width="{width}" height="{height}" rx="10" fill="{BACKGROUND}"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14" xml:space="preserve">',
    ]
    for row, line in enumerate(lines):
        x = 0
        for piece, colour, bold, dim in spans(line):
            style = (' font-weight="bold"' if bold else "") + (' opacity="0.65"' if dim else "")
            # Each column at its own place, whatever a viewer does with runs of spaces.
            for match in re.finditer(r"\S+(?: \S+)*", piece):
                at, words = x + match.start(), match[0]
                out.append(
                    f'<text x="{MARGIN + at * CELL:.1f}" y="{MARGIN + (row + 0.8) * LINE:.1f}" fill="{colour}"{style} '
                    f'textLength="{len(words) * CELL:.1f}">{html.escape(words)}</text>'
                )
            x += len(piece)
    out.append("</g></svg>")
    (HERE / "run.svg").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    draw(run())
