package core

import (
	"fmt"
	"os"
	"strconv"
)

// childFiles are the descriptors of a process that is about to start. No other child inherits them: all are
// close-on-exec.
type childFiles struct {
	child   []*os.File // the child's descriptors, by their numbers there
	env     []string   // the variables that name some of these numbers
	control *os.File   // the pipe that the report comes from, or nil

	ours   []*os.File // stay open here
	theirs []*os.File // closed here once the child has them
}

// openChildFiles makes the descriptors for a process, and sets p's ends of them. The result is never nil. If there is
// an error, the caller closes what was made.
func openChildFiles(p *Process, s Spec, reports bool) (*childFiles, error) {
	c := &childFiles{}
	printed, err := c.pipe(p, &p.capture, false)
	if err != nil {
		return c, err
	}
	if s.Stdio {
		in, err := c.pipe(p, &p.Stdin, true)
		if err != nil {
			return c, err
		}
		out, err := c.pipe(p, &p.Stdout, false)
		if err != nil {
			return c, err
		}
		c.child = []*os.File{in, out, printed}
	} else {
		in, err := c.input(p, s)
		if err != nil {
			return c, err
		}
		c.child = []*os.File{in, printed, printed}
	}
	if len(s.Files) > 0 {
		c.inherit("SNAKEPIT_CONN_FD", s.Files...)
	}
	if !inheritsFiles {
		return c, nil
	}
	if reports {
		report, err := c.pipe(p, &c.control, false)
		if err != nil {
			return c, err
		}
		c.inherit("SNAKEPIT_CONTROL_FD", report)
	}
	return c, c.lifeline(p)
}

// input returns the child's standard input, which is not the connection.
func (c *childFiles) input(p *Process, s Spec) (*os.File, error) {
	if len(s.Input) > 0 {
		return c.pipe(p, &p.input, true)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("the standard input of %s: %w", p.name, err)
	}
	c.theirs = append(c.theirs, null)
	return null, nil
}

// pipe makes a pipe, and sets our end of it. It returns the child's end.
func (c *childFiles) pipe(p *Process, our **os.File, childReads bool) (their *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("a pipe to %s: %w", p.name, err)
	}
	*our, their = r, w
	if childReads {
		*our, their = w, r
	}
	c.ours, c.theirs = append(c.ours, *our), append(c.theirs, their)
	return their, nil
}

// lifeline makes the pipe whose closing ends the child and its group. Both ends stay open here. The child gets a read
// end of its own.
func (c *childFiles) lifeline(p *Process) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("a pipe to %s: %w", p.name, err)
	}
	p.lifelineRead, p.lifelineWrite = r, w
	c.ours = append(c.ours, r, w)
	read := reopen(r)
	if read != r {
		c.theirs = append(c.theirs, read)
	}
	c.inherit("SNAKEPIT_LIFELINE_FD", read)
	return nil
}

// inherit gives files to the child. The variable gets the number of the first one.
func (c *childFiles) inherit(name string, files ...*os.File) {
	c.env = append(c.env, name+"="+strconv.Itoa(len(c.child)))
	c.child = append(c.child, files...)
}

func (c *childFiles) closeOurs()   { closeFiles(c.ours) }
func (c *childFiles) closeTheirs() { closeFiles(c.theirs) }

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // an earlier error matters more
		}
	}
}
