"""A picture of the upper part of a page: picture.py PAGE PNG. Used by scripts/pictures."""
import os
import sys

from browser import Browser

WIDTH, HEIGHT = 1240, 1520  # down to the prompt's text


def main(page, picture):
    browser = Browser()
    try:
        browser.open(os.path.abspath(page), width=WIDTH, height=HEIGHT)
        browser.evaluate("document.fonts.ready.then(() => new Promise(requestAnimationFrame)).then(() => 0)")
        browser.screenshot(picture, whole=False)
    finally:
        browser.close()
    if browser.problems:
        sys.exit("\n".join(browser.problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
