package main

import (
	"errors"
	"math"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// series is a line of a plot. Values of 0 were not measured, and are left out.
type series struct {
	name  string
	value func(point) float64
}

// drawGrowth draws how start, memory, and decision and revocation grow, each into an SVG file of a folder.
func drawGrowth(points []point, folder string) error {
	return errors.Join(
		draw(points, filepath.Join(folder, "growth-start.svg"), "Start to ready", "seconds",
			series{"verifier", func(p point) float64 { return p.start.Seconds() }},
			series{"bare client", func(p point) float64 { return p.bareStart.Seconds() }},
			series{"verifier's processor time", func(p point) float64 { return p.own.Seconds() }}),
		draw(points, filepath.Join(folder, "growth-memory.svg"), "Resident memory", "MiB",
			series{"verifier", func(p point) float64 { return float64(p.resident >> 20) }},
			series{"API server", func(p point) float64 { return float64(p.apiServer >> 20) }},
			series{"etcd", func(p point) float64 { return float64(p.etcd >> 20) }}),
		draw(points, filepath.Join(folder, "growth-answers.svg"), "A decision, and a revocation", "microseconds",
			series{"decision", func(p point) float64 { return p.decision / 1000 }},
			series{"revocation, p50", func(p point) float64 { return float64(p.deletion.Microseconds()) }},
			series{"the same of a bare client", func(p point) float64 { return float64(p.bareDeletion.Microseconds()) }}),
	)
}

func draw(points []point, path, title, unit string, lines ...series) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "keys", unit
	p.Title.Padding = vg.Points(6)
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = powersOfTen{}, powersOfTen{}
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, vg.Points(6)
	p.Add(plotter.NewGrid())
	var named []any
	for _, line := range lines {
		var values plotter.XYs
		for _, point := range points {
			if y := line.value(point); y > 0 {
				values = append(values, plotter.XY{X: float64(point.keys), Y: y})
			}
		}
		if len(values) > 0 {
			named = append(named, line.name, values)
		}
	}
	if err := plotutil.AddLinePoints(p, named...); err != nil {
		return err
	}
	p.X.Max *= 1.8 // room for the last number
	p.Y.Min = math.Pow(10, math.Floor(math.Log10(p.Y.Min)))
	p.Y.Max *= math.Pow(p.Y.Max/p.Y.Min, 0.35) // room for the names of the lines
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, path)
}

// powersOfTen are the ticks of an axis with a logarithmic scale. Only powers of ten have a label, such as 10,000.
type powersOfTen struct{}

// Ticks implements plot.Ticker.
func (powersOfTen) Ticks(least, greatest float64) []plot.Tick {
	ticks := plot.LogTicks{Prec: -1}.Ticks(least, greatest)
	for i, tick := range ticks {
		if tick.Label == "" {
			continue
		}
		label := strconv.FormatFloat(tick.Value, 'f', -1, 64)
		for at := len(label) - 3; at > 0 && tick.Value >= 1000; at -= 3 {
			label = label[:at] + "," + label[at:]
		}
		ticks[i].Label = label
	}
	return ticks
}
