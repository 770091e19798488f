"""Style sheet of a report.

Distinct colours (`h0` to `h6`) are near the palette of Okabe and Ito (2008), and ordered ones (`s0` to `s6`) are from
matplotlib's inferno and plasma. Readers with all common kinds of colour vision can tell them apart, and each has a
contrast of at least 3 to the charts; the tests compute both. Labels in the charts say the same as the colours.
"""

COLOURS = """
:root{--paper:#fff;--card:#f5f7f9;--ink:#19202a;--soft:#586373;--edge:#d3d9e0;--link:#0b5aa5;--error:#b3261e;--warning:#8a5a00;
--s0:#040316;--s1:#270b52;--s2:#530e6d;--s3:#7d1d6c;--s4:#a72d5f;--s5:#cd4247;--s6:#ea6428;
--h0:#667bc8;--h1:#d17700;--h2:#049857;--h3:#bc6b96;--h4:#6b4800;--h5:#052a6a;--h6:#4b453c}
@media screen and (prefers-color-scheme:dark){
:root{color-scheme:dark;--paper:#12161c;--card:#1a2028;--ink:#e4e9ef;--soft:#9aa7b6;--edge:#343e4a;--link:#7ab8f5;--error:#ff8a80;
--warning:#f0b849;--s0:#b93388;--s1:#d04d73;--s2:#e3685e;--s3:#f38649;--s4:#fca735;--s5:#fccc25;--s6:#f0f525;
--h0:#21a4fe;--h1:#c05109;--h2:#0c8758;--h3:#b969a6;--h4:#e2b215;--h5:#5cedff;--h6:#bdd9b8}}
"""
"""Colours of light and dark pages, as custom properties."""

_PAGE = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:86rem;background:var(--paper);color:var(--ink);
font:.94rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;margin:.2rem 0 .8rem;line-height:1.2}
h2{font-size:1.3rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:2px solid var(--edge)}
h3{font-size:1.1rem;margin:1.8rem 0 .3rem}
h4{font-size:.98rem;margin:1rem 0 .2rem}
h1,h2,h3,h4,p{overflow-wrap:anywhere}
p{margin:.4rem 0;max-width:60rem}
a{color:var(--link)}
.soft{color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:0 0 1rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
nav ul{list-style:none;padding:0;margin:.3rem 0}
nav li{margin:.15rem 0}
nav .of a{margin-right:.8rem;white-space:nowrap}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--edge)}
th{font-weight:600;vertical-align:bottom}
td{white-space:nowrap}.n{text-align:right}
.words td{white-space:normal}.words td:last-child{min-width:18rem;max-width:50rem}
td:first-child,th:first-child{position:sticky;left:0;background:var(--paper)}
.error{color:var(--error);font-weight:600}.warning{color:var(--warning);font-weight:600}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--link)}
.charts{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,16.5rem),1fr));margin:.6rem 0}
.charts.large{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),36rem))}
figure{margin:0;padding:.5rem .6rem .2rem;background:var(--card);border-radius:6px;break-inside:avoid}
small{color:var(--soft)}
figcaption{font-weight:600;font-size:.9rem}
.picture{background:#fff;border-radius:6px;padding:.5rem;margin:.6rem 0;overflow-x:auto}
.picture img{display:block}
.notice{border-left:4px solid var(--warning);padding:.3rem .8rem;margin:0 0 1rem;background:var(--card)}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.9rem;color:var(--soft);margin:.3rem 0}
.key svg{width:.8em;height:.8em;margin-right:.3em}
svg{display:block;width:100%;height:auto;overflow:visible}
.key svg{display:inline-block}
"""

CHARTS = """
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}
svg .label{fill:var(--c);font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:2px}
.grid{stroke:var(--edge);stroke-width:.6;fill:none}.axis{stroke:var(--soft);fill:none}
.rule{stroke:var(--soft);stroke-dasharray:3 3;fill:none}
.line{stroke:var(--c);stroke-width:1.6;fill:none}.bar{stroke:var(--c);stroke-width:3.4;stroke-opacity:.35;fill:none}
circle{fill:var(--c);stroke:var(--c);stroke-width:1.2}
rect{fill:var(--c);stroke:var(--c);stroke-width:1}
.hollow{fill:var(--card)}
.big circle{r:4.5px;stroke-width:2}
.faint .line,.faint circle{opacity:.45}
.front{--c:var(--edge)}.front .line{stroke-width:3}
.inside{--c:var(--h0)}.outside{--c:var(--h1)}.outside circle{stroke-width:2}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}
.h0{--c:var(--h0)}.h1{--c:var(--h1)}.h2{--c:var(--h2)}.h3{--c:var(--h3)}.h4{--c:var(--h4)}.h5{--c:var(--h5)}.h6{--c:var(--h6)}
.d1 .line{stroke-dasharray:6 3}.d2 .line{stroke-dasharray:2 2}
"""
"""Rules for charts, with the colours of `COLOURS`."""

_MEDIA = """
@media (max-width:40rem){body{padding:.7rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4rem}}
@media print{html{font-size:9.5px}body{max-width:none}nav,details{display:none}.wide,.picture{overflow:visible}
.picture{padding:0}.picture img{max-width:100%;height:auto}
.charts{grid-template-columns:repeat(4,1fr)}.charts.large{grid-template-columns:repeat(2,1fr)}
h2,h3,h4{break-after:avoid}tr{break-inside:avoid}section section{break-inside:avoid}}
"""

STYLE = COLOURS + _PAGE + CHARTS + _MEDIA
"""The whole style sheet."""
