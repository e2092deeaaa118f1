package main

import (
	"bytes"
	"errors"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const chartsDirectory = "../docs/charts"

// theme has the colours of a chart. Pages show the light or the dark one, as the reader's system does.
type theme struct {
	name             string
	paper, ink, grid color.Color
	colors           []color.Color
}

var themes = []theme{
	{"light", gray(0xff), gray(0x24), gray(0xdd), []color.Color{rgb(0x0969da), rgb(0xcf5f00), rgb(0x1a7f37)}},
	{"dark", rgb(0x0d1117), gray(0xe0), gray(0x33), []color.Color{rgb(0x58a6ff), rgb(0xffa657), rgb(0x56d364)}},
}

func gray(v uint8) color.Color { return color.Gray{v} }

func rgb(v uint32) color.Color { return color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 0xff} }

// draw draws the report's charts, each in every theme.
func (r *report) draw(directory string) error {
	var all error
	save := func(name string, height vg.Length, fill func(p *plot.Plot, t theme) error) {
		for _, t := range themes {
			p := t.plot()
			err := fill(p, t)
			if err == nil {
				err = saveSVG(p, height, filepath.Join(directory, name+"-"+t.name+".svg"))
			}
			all = errors.Join(all, err)
		}
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for _, row := range r.Rows {
		if slices.Contains([]string{"call", "callers", "bytes-16"}, row.Key) {
			height := vg.Length(len(row.Subjects)+4) * 0.6 * vg.Centimeter
			save(row.Key, height, func(p *plot.Plot, t theme) error { return row.draw(p, t) })
		}
	}
	for _, s := range r.Series {
		save("by-"+s.Key, 7*vg.Centimeter, func(p *plot.Plot, t theme) error { return s.draw(p, t) })
	}
	if r.Soak != nil {
		save(soakName, 7*vg.Centimeter, func(p *plot.Plot, t theme) error { return r.Soak.draw(p, t) })
	}
	return all
}

// saveSVG names other fonts beside the one that the chart was laid out with.
func saveSVG(p *plot.Plot, height vg.Length, path string) error {
	w, err := p.WriterTo(16*vg.Centimeter, height, "svg")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		return err
	}
	const family = "font-family:Liberation Sans"
	return os.WriteFile(path, bytes.ReplaceAll(b.Bytes(), []byte(family), []byte(family+",Arial,sans-serif")), 0o644)
}

// plot is an empty chart.
func (t theme) plot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = t.paper
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
	p.Title.TextStyle.Color, p.Legend.TextStyle.Color = t.ink, t.ink
	p.Title.TextStyle.Font, p.Legend.TextStyle.Font = sans, sans
	p.Title.Padding = 6
	p.Legend.Top = true
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Label.TextStyle.Color = t.ink, t.ink
		axis.Tick.Color, axis.Tick.Label.Color = t.ink, t.ink
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = sans, sans
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = t.grid, t.grid
	p.Add(grid)
	return p
}

// draw shows a line for each subject with a dot for each mode.
func (r rowReport) draw(p *plot.Plot, t theme) error {
	p.Title.Text = r.Name
	p.X.Label.Text = r.Unit + ", logarithmic"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.ThumbnailWidth = 10
	var names []string
	for i := range r.Subjects {
		names = append(names, r.Subjects[len(r.Subjects)-1-i].Name)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	for i, m := range both {
		var dots plotter.XYs
		for j, s := range r.Subjects {
			if f := s.Figures[m]; f != nil {
				dots = append(dots, plotter.XY{X: f.Median, Y: float64(len(names) - 1 - j)})
			}
		}
		if len(dots) == 0 {
			continue
		}
		scatter, err := plotter.NewScatter(dots)
		if err != nil {
			return err
		}
		scatter.GlyphStyle = draw.GlyphStyle{Color: t.colors[i], Radius: 4, Shape: draw.CircleGlyph{}}
		p.Add(scatter)
		p.Legend.Add(modeTitles[m], scatter)
	}
	p.X.Min, p.X.Max = p.X.Min*0.8, p.X.Max*1.5
	legendAbove(p, 2)
	return nil
}

func (r seriesReport) draw(p *plot.Plot, t theme) error {
	s := seriesOf(r.Key)
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.name, s.x, s.unit
	if s.logarithmic {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	for i, l := range r.Lines {
		points := make(plotter.XYs, len(l.Values))
		for j, v := range l.Values {
			points[j] = plotter.XY{X: float64(r.Points[j]), Y: v}
		}
		if err := t.line(p, i, l.Adapter, points); err != nil {
			return err
		}
	}
	p.Y.Min, p.X.Max = 0, p.X.Max*1.03 // room for the last number
	legendAbove(p, len(r.Lines))
	return nil
}

// legendAbove puts the lines of the legend between the title and the data.
func legendAbove(p *plot.Plot, lines int) {
	height := vg.Length(lines) * 13
	p.Title.Padding, p.Legend.YOffs = height+6, height
}

func (s *soakReport) draw(p *plot.Plot, t theme) error {
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.table().Title, "minutes", "resident MiB"
	var host, workers plotter.XYs
	for _, point := range s.Points {
		host = append(host, plotter.XY{X: point.Seconds / 60, Y: point.Host})
		workers = append(workers, plotter.XY{X: point.Seconds / 60, Y: point.Workers})
	}
	p.Y.Min = 0
	legendAbove(p, 2)
	return errors.Join(t.line(p, 0, "Go", host), t.line(p, 1, "six workers", workers))
}

func (t theme) line(p *plot.Plot, color int, name string, points plotter.XYs) error {
	l, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	l.Color, l.Width = t.colors[color], 2
	p.Add(l)
	p.Legend.Add(name, l)
	return nil
}
