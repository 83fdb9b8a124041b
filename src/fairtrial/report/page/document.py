"""The report as one HTML file that needs no other file and no network."""

from markupsafe import Markup

from fairtrial.report.page.assets import in_page, page_script, style_sheet, vega_script
from fairtrial.report.page.controls import arm_controls
from fairtrial.report.page.environment import render
from fairtrial.report.page.figures import figure_choice
from fairtrial.report.page.items import Section
from fairtrial.report.page.material import Material
from fairtrial.report.page.story import story
from fairtrial.report.style import chart_text
from fairtrial.spec import Study


def document(material: Material, sections: tuple[Section, ...] | None = None) -> str:
    """Write the page.

    Args:
        material: what is shown.
        sections: the sections of `story` for it, if they are there already.
    """
    sections = story(material) if sections is None else sections
    study = material.shown.study
    bodies = [(section, section_markup(section, study)) for section in sections]
    return render(
        "report.html",
        title=chart_text(study.name),
        label=study.label,
        bodies=bodies,
        arms=arm_controls(study) if len(study.arms) > 1 else "",
        style=Markup(style_sheet()),  # noqa: S704  (the package's own file)
        scripts=[Markup(in_page(text)) for text in (vega_script(), page_script())],  # noqa: S704  (likewise)
    )


def section_markup(section: Section, study: Study, *, level: int = 2) -> Markup:
    """Write one section, with its heading.

    Args:
        section: its data.
        study: under the labels that its charts show.
        level: of the heading.
    """

    def charts(item: object) -> Markup:
        return figure_choice(item.figures, study, item.identifier, asked=item.asked, level=level + 1)  # type: ignore[attr-defined]

    return render("section.html", section=section, level=level, charts=charts)
